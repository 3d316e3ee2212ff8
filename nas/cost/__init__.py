"""What a network costs: counted from a plan, counted again from the module, traced, tabulated, measured."""
