"""Style and script of the page. Both follow the reader's light or dark preference and the width of the window."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --text: #1c1e21; --quiet: #5f6670; --rule: #dfe3e8; --panel: #f5f7f9;
  --trials: #808080; --front: #0072b2; --best: #d55e00; --budget: #4d4d4d; --good: #00704f; --bad: #b3261e;
  --attempt0: #0072b2; --attempt1: #e69f00; --attempt2: #009e73; --attempt3: #cc79a7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --text: #e6e8ea; --quiet: #a0a8b1; --rule: #333a42; --panel: #1d2126;
    --trials: #9aa3ad; --front: #56b4e9; --best: #f0883e; --budget: #c0c6cc; --good: #4cc9a0; --bad: #ff8a80;
    --attempt0: #56b4e9; --attempt1: #e69f00; --attempt2: #2bc49a; --attempt3: #e29fc4;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
header p { margin: 0; }
h1 { margin: .2rem 0 .4rem; font-size: 1.55rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.4rem 0 .6rem; font-size: 1.15rem; }
.quiet { color: var(--quiet); }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.notice { margin: 1rem 0; padding: .7rem 1rem; border-left: 4px solid var(--bad); background: var(--panel); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem 1.4rem .38rem 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { color: var(--quiet); font-weight: 600; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
td:first-child { min-width: 6.5rem; }
tr.best td:first-child::after { content: " ★"; color: var(--best); }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
td:first-child code, tr.best td:first-child, .good, .bad, summary { white-space: nowrap; }
details { margin-bottom: .5rem; }
td details { margin: 0; }
details summary { cursor: pointer; color: var(--quiet); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.figure { height: 27rem; }
.figure.low { height: 19rem; }
@media (max-width: 40rem) {
  h1 { font-size: 1.25rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .6rem; }
  .figure { height: 22rem; }
}
"""

# every trace names its colour in `meta`; all else takes the colours of the page
SCRIPT = """
const figures = [...document.querySelectorAll('script[type="application/json"]')].map(
  source => [source.dataset.figure, JSON.parse(source.textContent)]);
function paint() {
  const style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue('--' + name).trim();
  const axis = {gridcolor: colour('rule'), linecolor: colour('rule'), zerolinecolor: colour('rule'),
                tickcolor: colour('rule'), automargin: true, zeroline: false, showline: true};
  for (const [id, figure] of figures) {
    const data = figure.data.map(trace => ({...trace,
      line: {...trace.line, color: colour(trace.meta), width: 2},
      marker: {color: colour(trace.meta), size: {best: 15, front: 8}[trace.meta] || 6,
               symbol: trace.meta === 'best' ? 'star' : 'circle', opacity: trace.meta === 'trials' ? 0.65 : 1,
               line: {color: colour('page'), width: trace.meta === 'trials' ? 0 : 1}, ...trace.marker}}));
    const layout = {...figure.layout,
      paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
      font: {color: colour('text'), family: getComputedStyle(document.body).fontFamily, size: 13},
      hoverlabel: {bgcolor: colour('panel'), bordercolor: colour('rule'), font: {color: colour('text')}, align: 'left'},
      xaxis: {...figure.layout.xaxis, ...axis}, yaxis: {...figure.layout.yaxis, ...axis},
      shapes: (figure.layout.shapes || []).map(s => ({...s, line: {...s.line, color: colour('budget')}})),
      annotations: (figure.layout.annotations || []).map(a => ({...a, font: {color: colour('budget')}}))};
    Plotly.react(id, data, layout, {responsive: true, displayModeBar: false});
  }
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', paint);
paint();
"""
