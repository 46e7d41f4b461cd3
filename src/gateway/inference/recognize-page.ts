import { createHash } from 'node:crypto';

const STYLE = `
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2a33;background:#fbfaf7}
h1{font-size:1.5rem;margin:0}label{display:block;margin:.75rem 0}input[type=password],input[type=text],select{font:inherit;padding:.3rem;width:100%;max-width:34rem}
button{font:inherit;padding:.4rem 1rem;background:#1d5c7a;color:#fff;border:0;border-radius:4px;cursor:pointer}button:disabled{opacity:.5}
canvas{max-width:100%;border:1px solid #ccc;margin-top:1rem;display:none}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #ddd}
pre{background:#eef1f2;padding:.75rem;overflow:auto;font-size:.8rem}.error{color:#9c1c1c}[hidden]{display:none}`;

const SCRIPT = `
const $ = (id) => document.getElementById(id);
const text = (tag, value) => { const node = document.createElement(tag); node.textContent = value; return node; };
const auth = () => ($('key').value ? { authorization: 'Bearer ' + $('key').value } : {});
const replay = () => ($('replay').checked ? { 'millrace-replay': 'allow' } : {});
async function models() {
  const answer = await fetch('/v1/models');
  const { data } = await answer.json();
  for (const model of data.filter((one) => one.millrace.task === 'detection')) {
    const option = text('option', model.id);
    option.value = model.id;
    $('model').append(option);
  }
  if ($('model').options.length === 0) fail('No miner recognizes images at the moment.');
}
function fail(message) { $('error').textContent = message; $('error').hidden = false; }
function draw(image, found) {
  const canvas = $('picture');
  canvas.width = found.width; canvas.height = found.height; canvas.style.display = 'block';
  const pen = canvas.getContext('2d');
  pen.drawImage(image, 0, 0, found.width, found.height);
  const unit = Math.max(found.width, found.height) / 640;
  pen.lineWidth = 3 * unit; pen.font = Math.round(16 * unit) + 'px system-ui';
  found.objects.forEach((object, index) => {
    const colour = 'hsl(' + ((index * 67) % 360) + ' 70% 40%)';
    const { x, y, width, height } = object.box;
    const words = object.label + ' ' + Math.round(object.score * 100) + ' %';
    pen.strokeStyle = colour; pen.strokeRect(x, y, width, height);
    pen.fillStyle = colour; pen.fillRect(x, Math.max(0, y - 22 * unit), pen.measureText(words).width + 10 * unit, 22 * unit);
    pen.fillStyle = '#fff'; pen.fillText(words, x + 5 * unit, Math.max(16 * unit, y - 6 * unit));
  });
}
function list(found) {
  $('objects').replaceChildren(...found.objects.map((object) => {
    const row = document.createElement('tr');
    const { x, y, width, height } = object.box;
    row.append(text('td', object.label), text('td', (object.score * 100).toFixed(1) + ' %'), text('td', [x, y, width, height].map(Math.round).join(', ')));
    return row;
  }));
  $('none').hidden = found.objects.length > 0;
}
function amount(baseUnits) {
  const digits = baseUnits.padStart(19, '0');
  const fraction = digits.slice(-18).replace(/0+$/, '');
  return digits.slice(0, -18) + (fraction ? '.' + fraction : '') + ' tokens (' + baseUnits + ' base units)';
}
function show(answer, found) {
  const encoded = answer.headers.get('millrace-receipt');
  const receipt = encoded ? JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(encoded.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0)))) : undefined;
  $('cost').textContent = amount(answer.headers.get('millrace-cost') || '0');
  $('who').textContent = receipt ? 'operator ' + receipt.subject.operatorId + ', key ' + receipt.subject.miner : 'unknown';
  $('evidence').textContent = receipt ? receipt.evidence + ' (profile ' + receipt.profile + ')' : 'none: the answer has no valid receipt and was free';
  $('receipt').textContent = receipt ? JSON.stringify(receipt, undefined, 1) : '';
  list(found);
  $('result').hidden = false;
}
$('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  $('error').hidden = true; $('go').disabled = true;
  try {
    const file = $('file').files[0];
    const query = new URLSearchParams({ model: $('model').value, score_min: $('score').value });
    const answer = await fetch('/v1/tasks/detection?' + query, { method: 'POST', body: file, headers: { 'content-type': file.type || 'application/octet-stream', ...replay(), ...auth() } });
    const found = await answer.json();
    if (!answer.ok) return fail(found.error.message + (found.error.millrace?.hint ? ' ' + found.error.millrace.hint : ''));
    show(answer, found);
    draw(await createImageBitmap(file, { imageOrientation: 'from-image' }), found);
  } catch (error) { fail(error.message); } finally { $('go').disabled = false; }
});
models().catch((error) => fail(error.message));`;

const HTML = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,"><title>Millrace: recognize a picture</title><style>${STYLE}</style></head>
<body><h1>Recognize a picture</h1>
<p>A miner of the network looks for things in your picture. You see what it found, what it signed, and what it cost.</p>
<form id="form">
<label>Picture <input id="file" type="file" accept="image/*" required></label>
<label>Model <select id="model" required></select></label>
<label>Leave out what scores below <input id="score" type="range" min="0.1" max="0.9" step="0.1" value="0.5"></label>
<label><input id="replay" type="checkbox"> Validators may see the picture and run it again: only then can the receipt say more than “reputation only”</label>
<label>Key (not needed on your own machine) <input id="key" type="password" autocomplete="off" placeholder="sk-millrace-…"></label>
<button id="go">Recognize</button></form>
<p id="error" class="error" role="alert" hidden></p>
<section id="result" hidden><canvas id="picture"></canvas>
<p id="none" hidden>Nothing was found.</p>
<table><thead><tr><th>What</th><th>Score</th><th>Box: left, top, width, height</th></tr></thead><tbody id="objects"></tbody></table>
<p>Cost: <strong id="cost"></strong>. Answered by <span id="who"></span>. Evidence: <span id="evidence"></span>.</p>
<details><summary>The receipt</summary><pre id="receipt"></pre></details></section>
<script>${SCRIPT}</script></body></html>
`;

const hashOf = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** `GET /recognize`: one page of our own. It loads nothing from anywhere else, and its policy lets it load nothing. */
export const RECOGNIZE_PAGE: { html: string; headers: Record<string, string> } = {
  html: HTML,
  headers: {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': `default-src 'none'; script-src ${hashOf(SCRIPT)}; style-src ${hashOf(STYLE)} 'unsafe-hashes'; connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  },
};
