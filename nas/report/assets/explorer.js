'use strict';
// The Pareto front on axes of choice, and the comparison of pinned networks. The page's explorer.py says what the data are.
const explorer = JSON.parse(document.getElementById('explorer-data').textContent);
const {networks, runs} = explorer;
const metricOf = Object.fromEntries(explorer.metrics.map(m => [m.id, m]));
const byKey = new Map(networks.key.map((key, i) => [key, i]).reverse());
const chosen = {x: document.getElementById('axis-x'), y: document.getElementById('axis-y')};
const MOST_PINNED = 8;
let pinned = [...explorer.pinned];

// -- numbers, as nas/report/words.py writes them

function digits(value, n) {
  return String(Number(value.toPrecision(n)));
}

function show(metric, value) {
  if (value === null || value === undefined) return null;
  const {kind, unit} = metricOf[metric];
  if (kind === 'share') return (100 * value).toFixed(1) + '%';
  if (kind === 'plain') return digits(value, 6);
  if (kind === 'time') return `${digits(value, 3)} ${unit}`;
  const power = value ? Math.max(0, Math.min(3, Math.floor(Math.log10(Math.abs(value)) / 3))) : 0;
  const number = power ? digits(value / 1000 ** power, 4) : value.toFixed(0);
  return `${number} ${['', 'k', 'M', 'G'][power]}${unit}`.trim();
}

function difference(metric, value, base) {
  if (value === null || base === null || value === undefined || base === undefined) return '';
  const share = metricOf[metric].kind === 'share';
  if (!share && !base) return '';
  const amount = 100 * (share ? value - base : value / base - 1);
  const text = Math.abs(amount).toFixed(1);
  const sign = text === '0.0' ? '±' : amount > 0 ? '+' : '−';
  return sign + text + (share ? ' points' : '%');
}

// -- the figure

function plain(text) {
  return String(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function hover(i) {
  const lines = explorer.metrics.filter(m => networks.values[m.id][i] !== null)
    .map(m => `${m.name}: ${show(m.id, networks.values[m.id][i])}`);
  const run = runs.length > 1 ? `, ${runs[networks.run[i]].name}` : '';
  return [`<b>${plain(networks.key[i])}</b>, ${networks.note[i]}${plain(run)}`, ...lines.map(plain)].join('<br>');
}

function points(members, x, y) {
  const scaled = (metric, i) => networks.values[metric.id][i] === null ? null : metric.factor * networks.values[metric.id][i];
  return {x: members.map(i => scaled(x, i)), y: members.map(i => scaled(y, i)), text: members.map(hover), customdata: members};
}

function limitsOf(metric) {
  return explorer.limits.filter(l => l.metric === metric.id).map(l => ({at: metric.factor * l.value, text: 'budget ' + plain(l.text)}));
}

// a budget that is far from all networks is named at the edge: the axis would have no room left for them
function span(metric, coordinates) {
  let low = Infinity, high = -Infinity;
  for (const value of coordinates.flat()) {
    if (value === null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return undefined;
  const reach = 2 * (high - low) || Math.abs(high);
  const near = limitsOf(metric).map(l => l.at).filter(at => at > low - reach && at < high + reach);
  low = Math.min(low, ...near);
  high = Math.max(high, ...near);
  const room = 0.05 * (high - low) || 0.05 * Math.abs(high) || 1, most = metric.kind === 'share' ? 100.5 : Infinity;
  return [low - room, Math.min(high + room, most)];
}

function limitLines(x, y, ranges) {
  const shapes = [], annotations = [], line = {dash: 'dash', width: 1.5}, note = {showarrow: false};
  for (const {at, text} of limitsOf(x)) {
    if (ranges[0] && at > ranges[0][1]) {
      annotations.push({...note, x: 1, y: 1, xref: 'paper', yref: 'paper', text: text + ' →', xanchor: 'right', yanchor: 'top'});
    } else {
      shapes.push({type: 'line', x0: at, x1: at, yref: 'paper', y0: 0, y1: 1, line});
      annotations.push({...note, x: at, y: 1, yref: 'paper', text, textangle: -90, xanchor: 'right', yanchor: 'top', xshift: -3});
    }
  }
  for (const {at, text} of limitsOf(y)) {
    if (ranges[1] && at > ranges[1][1]) {
      annotations.push({...note, x: 0, y: 1, xref: 'paper', yref: 'paper', text: text + ' ↑', xanchor: 'left', yanchor: 'top'});
    } else {
      shapes.push({type: 'line', y0: at, y1: at, xref: 'paper', x0: 0, x1: 1, line});
      annotations.push({...note, y: at, x: 0, xref: 'paper', text, xanchor: 'left', yanchor: 'bottom'});
    }
  }
  return {shapes, annotations};
}

function drawFront() {
  const x = metricOf[chosen.x.value], y = metricOf[chosen.y.value];
  const stairs = x.id === explorer.x && y.id === explorer.y;
  const traces = explorer.traces.map(t => ({type: 'scatter', name: t.name, meta: t.meta, hovertemplate: '%{text}<extra></extra>',
    mode: t.stairs && stairs ? 'lines+markers' : 'markers', line: {shape: 'hv'}, marker: t.marker || {}, ...points(t.members, x, y)}));
  traces.push({type: 'scatter', name: 'compared', meta: 'pinned', mode: 'markers', hoverinfo: 'skip', showlegend: false,
    marker: {symbol: 'circle-open', color: colour('pinned'), line: {color: colour('pinned'), width: 2}}, ...points(pinned, x, y)});
  const ranges = [span(x, traces.map(t => t.x)), span(y, traces.map(t => t.y))];
  draw('front', {data: traces, layout: {
    xaxis: {title: {text: x.label}, range: ranges[0]}, yaxis: {title: {text: y.label, standoff: 10}, range: ranges[1]},
    margin: {l: 60, r: 16, t: 36, b: 56}, legend: {orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom'},
    hovermode: 'closest', ...limitLines(x, y, ranges)}});
}

// -- the comparison

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function absent() {
  const dash = element('span', {}, '–');
  dash.setAttribute('role', 'img');
  dash.setAttribute('aria-label', 'not known');
  return dash;
}

function choiceOf(name, i) {
  const at = explorer.choices.at[name][i];
  return at < 0 ? null : String(explorer.choices.options[name][at]);
}

function metricRow(metric) {
  const base = networks.values[metric.id][pinned[0]];
  const cells = pinned.map((i, place) => {
    const value = networks.values[metric.id][i], cell = element('td', {className: 'number'}, show(metric.id, value) ?? absent());
    if (place) cell.append(element('span', {className: 'difference'}, difference(metric.id, value, base)));
    return cell;
  });
  return element('tr', {}, element('th', {scope: 'row'}, metric.name), ...cells);
}

function choiceRow(name) {
  const cells = pinned.map(i => element('td', {className: 'number'}, choiceOf(name, i) ?? absent()));
  return element('tr', {}, element('th', {scope: 'row'}, element('code', {}, name)), ...cells);
}

function commandRow() {
  const cells = pinned.map(i => {
    const start = runs[networks.run[i]].extract, text = start + ' ' + networks.key[i];
    if (!start) return element('td', {className: 'number'}, absent());
    const button = element('button', {type: 'button'}, 'Copy');
    button.dataset.copy = text;
    button.setAttribute('aria-label', `Copy the command that extracts ${networks.key[i]}`);
    return element('td', {className: 'number'}, element('div', {className: 'command'}, element('code', {}, text), button));
  });
  return element('tr', {}, element('th', {scope: 'row'}, 'extract it with'), ...cells);
}

function heading(i, place) {
  const note = element('span', {className: 'difference'}, networks.note[i] + (runs.length > 1 ? ', ' + runs[networks.run[i]].name : ''));
  const cell = element('th', {scope: 'col', className: 'number'}, element('code', {}, networks.key[i]), note);
  if (place) {
    const button = element('button', {type: 'button', className: 'remove'}, 'Remove');
    button.setAttribute('aria-label', `Remove ${networks.key[i]} from the comparison`);
    button.addEventListener('click', () => { toggle(i); document.getElementById('comparison').focus(); });
    cell.append(button);
  }
  return cell;
}

function compare() {
  const comparable = new Set(pinned.map(i => runs[networks.run[i]].space)).size === 1;
  const names = comparable ? Object.keys(explorer.choices.at).filter(name => pinned.some(i => choiceOf(name, i) !== null)) : [];
  const differing = names.filter(name => new Set(pinned.map(i => choiceOf(name, i))).size > 1);
  const metrics = explorer.metrics.filter(m => pinned.some(i => networks.values[m.id][i] !== null));
  const same = names.length - differing.length;
  const caption = pinned.length < 2 ? 'The first column is what others are compared with.'
    : 'Differences are against the first column. ' + (comparable ? `${same} of ${names.length} choices are the same everywhere.`
      : 'The choices of different spaces are not compared.');
  const table = element('table', {className: 'compare'}, element('caption', {}, caption),
    element('thead', {}, element('tr', {}, element('th', {scope: 'col'}, 'network'), ...pinned.map(heading))),
    element('tbody', {}, ...metrics.map(metricRow), ...differing.map(choiceRow), ...(runs.some(run => run.extract) ? [commandRow()] : [])));
  document.getElementById('comparison').replaceChildren(table);
  for (const button of document.querySelectorAll('button[data-network]')) {
    button.setAttribute('aria-pressed', String(pinned.includes(Number(button.dataset.network))));
  }
}

function toggle(i) {
  const said = document.getElementById('said'), key = networks.key[i];
  if (i === explorer.pinned[0]) {
    said.textContent = `${key} is the network that others are compared with.`;
  } else if (pinned.includes(i)) {
    pinned = pinned.filter(other => other !== i);
    said.textContent = `${key} was removed from the comparison.`;
  } else if (pinned.length >= MOST_PINNED) {
    said.textContent = `${MOST_PINNED} networks are compared; remove one first.`;
  } else {
    pinned.push(i);
    said.textContent = `${key} is compared.`;
  }
  compare();
  drawFront();
}

function addByKey(event) {
  event.preventDefault();
  const field = document.getElementById('by-key'), i = byKey.get(field.value.trim());
  if (i === undefined) {
    document.getElementById('said').textContent = `No network ${field.value.trim()} is on this page.`;
  } else {
    if (!pinned.includes(i)) toggle(i);
    field.value = '';
  }
}

chosen.x.addEventListener('change', drawFront);
chosen.y.addEventListener('change', drawFront);
document.getElementById('add').addEventListener('submit', addByKey);
for (const button of document.querySelectorAll('button[data-network]')) {
  button.addEventListener('click', () => toggle(Number(button.dataset.network)));
}
compare();
drawFront();
document.getElementById('front').on('plotly_click', event => {
  const point = event.points[0];
  if (point && point.customdata !== undefined) toggle(point.customdata);
});
