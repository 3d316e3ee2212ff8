'use strict';
// Every trace names its colour in `meta`; all else takes the colours of the page, which follow light, dark and print.
const drawn = new Map();
const PRINTED_WIDTH = 640;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
}

function paintedTrace(trace) {
  const own = trace.meta, quiet = own === 'trials';
  return {...trace,
    line: {color: colour(own), width: 2, ...trace.line},
    marker: {color: colour(own), size: {best: 15, front: 8, pinned: 17}[own] || 6, symbol: own === 'best' ? 'star' : 'circle',
             opacity: quiet ? 0.6 : 1, line: {color: colour('page'), width: quiet ? 0 : 1}, ...trace.marker}};
}

function paintedAxis(axis) {
  return {...axis, gridcolor: colour('rule'), linecolor: colour('rule'), zerolinecolor: colour('rule'),
          tickcolor: colour('rule'), automargin: true, zeroline: false, showline: true};
}

function painted(figure) {
  const layout = figure.layout;
  return {
    data: figure.data.map(paintedTrace),
    layout: {...layout, width: printing() ? PRINTED_WIDTH : undefined,
      paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
      font: {color: colour('text'), family: getComputedStyle(document.body).fontFamily, size: 13},
      hoverlabel: {bgcolor: colour('panel'), bordercolor: colour('rule'), font: {color: colour('text')}, align: 'left'},
      xaxis: paintedAxis(layout.xaxis), yaxis: paintedAxis(layout.yaxis),
      shapes: (layout.shapes || []).map(s => ({...s, line: {...s.line, color: colour('budget')}})),
      annotations: (layout.annotations || []).map(a => ({...a, font: {color: colour('budget')}}))}};
}

function draw(id, figure) {
  drawn.set(id, figure);
  const {data, layout} = painted(figure);
  return Plotly.react(id, data, layout, {responsive: true, displayModeBar: false});
}

function printing() {
  return document.documentElement.hasAttribute('data-print');
}

// styles for print hold only after this, so that the colours are asked for by an attribute
function print(on) {
  document.documentElement.toggleAttribute('data-print', on);
  repaint();
}

function repaint() {
  for (const [id, figure] of drawn) draw(id, figure);
}

// one after the other, each in a task of its own, so that the page reacts in between
for (const source of document.querySelectorAll('script[data-figure]')) {
  setTimeout(() => draw(source.dataset.figure, JSON.parse(source.textContent)));
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', repaint);
addEventListener('beforeprint', () => print(true));
addEventListener('afterprint', () => print(false));
