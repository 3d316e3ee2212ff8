"""Latency of networks: tables measured on a device, what they predict, and how far off that is."""
