import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MillraceError } from '../../errors.ts';
import { parseDeployment, parseSpec } from './parse-deployment.ts';

const FILES = join(import.meta.dirname, 'sdl-files');
const yamlIn = (folder: string) => readdirSync(join(FILES, folder)).filter((name) => name.endsWith('.yaml'));
const textOf = (...path: string[]) => readFileSync(join(FILES, ...path), 'utf8');

/** `code line:column field: reason` of what a document is refused with. */
function refusalOf(text: string): string {
  try {
    parseDeployment(text);
  } catch (error) {
    assert.ok(error instanceof MillraceError, String(error));
    const { line, column, field, reason, what } = error.values;
    return `${error.code} ${line}:${column} ${field === '' ? '' : `${field}: `}${reason ?? what}`;
  }
  return 'taken';
}

for (const name of yamlIn('valid')) {
  test(`the SDL ${name} gives the deployment that is written beside it`, () => {
    const { spec, warnings } = parseDeployment(textOf('valid', name));
    const said = warnings.map(({ line, column, field, message }) => `${line}:${column} ${field}: ${message}`);
    const expected: unknown = JSON.parse(textOf('valid', name.replace('.yaml', '.json')));
    assert.deepEqual({ spec, warnings: said }, expected);
  });
}

for (const name of yamlIn('refused')) {
  test(`the SDL ${name} is refused with the code, line, column and field that its first line says`, () => {
    const text = textOf('refused', name);
    const due = (text.split('\n')[0] as string).slice(2);
    assert.equal(refusalOf(text).slice(0, due.length), due);
  });
}

const SHOP = textOf('valid', 'shop-with-database.yaml');
const TRAINER = textOf('valid', 'fine-tuning-on-gpus.yaml');
const ENCLAVE = textOf('valid', 'enclave-with-notice.yaml');
const WEB = textOf('valid', 'one-web-server.yaml');

/** One change of a good document, and what it is refused with. */
const FAULTS: [document: string, change: [from: string | RegExp, to: string], refusal: string][] = [
  [WEB, ['version: "2.0"\n', ''], 'bad-spec 2:1 version is missing'],
  [WEB, ['version: "2.0"', 'version: "9"'], 'bad-spec 2:1 version: got "9"; due is 2.0, 2.1'],
  [WEB, ['    image: nginx:1.27.3\n', ''], 'bad-spec 4:3 services.web: image is missing'],
  [WEB, ['nginx:1.27.3', '""'], 'bad-spec 5:5 services.web.image: got ""; due is an image'],
  [WEB, ['nginx:1.27.3', '"nginx; rm -rf /"'], 'bad-spec 5:5 services.web.image: got "nginx; rm -rf /"'],
  [WEB, ['nginx:1.27.3', '[nginx]'], 'bad-spec 5:5 services.web.image: it is a list; due is a text'],
  [WEB, ['nginx:1.27.3', 'nginx\n    volumes: []'], 'bad-spec 6:5 services.web.volumes: there is no such field'],
  [WEB, ['nginx:1.27.3', 'nginx\n    image: caddy'], 'bad-spec 6:5 services.web.image: the key stands there twice'],
  [WEB, ['nginx:1.27.3', 'nginx\n    env: [GREETING]'], 'bad-spec 6:11 services.web.env[0]: due is NAME=value'],
  [WEB, ['nginx:1.27.3', 'nginx\n    env: ["1ST=x"]'], 'bad-spec 6:11 services.web.env[0]: a name of the environment'],
  [WEB, ['nginx:1.27.3', 'nginx\n    env: {A: b}'], 'bad-spec 6:5 services.web.env: it is a map; due is a list'],
  [WEB, ['nginx:1.27.3', 'nginx\n    <<: {args: [x]}'], 'bad-spec 6:5 services.web.<<: a key must be plain text'],
  [WEB, ['nginx:1.27.3', 'nginx\n    args: *nothing'], 'bad-spec 6:5 services.web.args: there is no anchor &nothing before it'],
  [WEB, ['nginx:1.27.3', 'nginx\n    env: [!secret A=b]'], 'bad-spec 6:11 Unresolved tag: !secret'],
  [WEB, ['nginx:1.27.3', '"nginx\\u0000"'], 'bad-spec 5:5 services.web.image: it holds a control character'],
  [WEB, ['port: 80', 'port: 0'], 'bad-spec 7:9 services.web.expose[0].port: got "0"; due is a whole number from 1 to 65535'],
  [WEB, ['port: 80', 'port: 65536'], 'bad-spec 7:9 services.web.expose[0].port: got "65536"'],
  [WEB, ['port: 80', 'port: http'], 'bad-spec 7:9 services.web.expose[0].port: got "http"'],
  [WEB, ['port: 80', 'as: 80'], 'bad-spec 7:9 services.web.expose[0]: port is missing'],
  [WEB, ['port: 80', 'port: 80\n        proto: sctp'], 'bad-spec 8:9 services.web.expose[0].proto: got "sctp"; due is tcp or udp'],
  [WEB, ['global: true', 'global: yes'], 'bad-spec 9:13 services.web.expose[0].to[0].global: got "yes"; due is true, false'],
  [WEB, ['global: true', 'global: false'], 'bad-spec 9:13 services.web.expose[0].to[0]: due is global: true or service'],
  [WEB, ['global: true', 'service: nobody'], 'bad-spec 9:13 services.web.expose[0].to[0].service: there is no service "nobody"'],
  [WEB, ['- global: true', '- ip: front'], 'bad-spec 9:13 services.web.expose[0].to[0].ip: an ip belongs to global: true'],
  [WEB, ['- global: true', '- {global: true, ip: front}'], 'bad-spec 9:28 services.web.expose[0].to[0].ip: there is no endpoint "front"'],
  [
    WEB,
    ['services:', 'endpoints: {front: {kind: ip}}\nservices:'],
    'bad-spec 3:13 endpoints.front: the endpoint is declared but never used',
  ],
  [WEB, ['services:', 'endpoints: {Front!: {kind: ip}}\nservices:'], 'bad-spec 3:13 endpoints.Front!: the name of an endpoint'],
  [WEB, ['services:', 'endpoints: {front: {kind: dns}}\nservices:'], 'bad-spec 3:21 endpoints.front.kind: got "dns"; due is ip'],
  [WEB, ['  web:\n    image', '  Web:\n    image'], 'bad-spec 4:3 services.Web: a name begins with a-z'],
  [WEB, ['units: 0.5', 'units: -1'], 'bad-spec 15:11 profiles.compute.web.resources.cpu.units: got "-1"'],
  [WEB, ['units: 0.5', 'units: 0'], 'bad-spec 15:11 profiles.compute.web.resources.cpu.units: got "0"; due is from 1m'],
  [WEB, ['units: 0.5', 'units: 1 core'], 'bad-spec 15:11 profiles.compute.web.resources.cpu.units: got "1 core"'],
  [WEB, ['          size: 512Mi\n', '          {}\n'], 'bad-spec 16:9 profiles.compute.web.resources.memory: size is missing'],
  [WEB, ['512Mi', '512Xi'], 'bad-spec 17:11 profiles.compute.web.resources.memory.size: got "512Xi"; due is a size'],
  [WEB, ['512Mi', '99Pi'], 'bad-spec 17:11 profiles.compute.web.resources.memory.size: got "99Pi"; due is more than nothing'],
  [WEB, [/ {8}storage:\n.*\n/, ''], 'bad-spec 13:7 profiles.compute.web.resources: storage is missing'],
  [WEB, [/ {6}pricing:\n(?:.*\n){3}/, '      {}\n'], 'bad-spec 21:5 profiles.placement.anywhere: pricing is missing'],
  [WEB, ['denom: uact', 'denom: dollar'], 'bad-spec 24:11 profiles.placement.anywhere.pricing.web.denom: got "dollar"'],
  [
    WEB,
    ['amount: 1000', 'amount: -5'],
    'bad-spec 25:11 profiles.placement.anywhere.pricing.web.amount: got "-5"; due is a positive number',
  ],
  [WEB, ['amount: 1000', 'amount: 1e9'], 'bad-spec 25:11 profiles.placement.anywhere.pricing.web.amount: got "1e9"'],
  [
    WEB,
    ['        web:\n          denom', '        wob:\n          denom'],
    'bad-spec 28:5 deployment.web.anywhere: profiles.placement.anywhere.pricing has no price for web',
  ],
  [WEB, ['profile: web', 'profile: big'], 'bad-spec 29:7 deployment.web.anywhere.profile: there is no "big" under profiles.compute'],
  [WEB, [/ {4}anywhere:\n {6}profile/, '    nowhere:\n      profile'], 'bad-spec 28:5 deployment.web.nowhere: there is no such placement'],
  [WEB, [/ {2}web:\n {4}anywhere/, '  wob:\n    anywhere'], 'bad-spec 27:3 deployment.wob: there is no such service'],
  [WEB, ['count: 1', 'count: 0'], 'bad-spec 30:7 deployment.web.anywhere.count: got "0"; due is a whole number from 1 to 64'],
  [WEB, [/deployment:[\s\S]*/, ''], 'bad-spec 2:1 deployment is missing'],
  [WEB, [/deployment:[\s\S]*/, 'deployment: {}'], 'bad-spec 26:1 deployment: it places nothing'],
  [WEB, [/deployment:[\s\S]*/, 'deployment: web'], 'bad-spec 26:1 deployment: it is a plain value; due is a map'],
  [SHOP, ['"503"', '"503", off'], 'bad-spec 20:11 services.shop.expose[0].http_options.next_cases: off stands alone'],
  [SHOP, ['"503"', '"418"'], 'bad-spec 20:40 services.shop.expose[0].http_options.next_cases[2]: got "418"'],
  [SHOP, ['10485760', '1048576000'], 'bad-spec 19:11 services.shop.expose[0].http_options.max_body_size: got "1048576000"'],
  [SHOP, ['mount: /var/lib/postgresql/data', 'mount: data'], 'bad-spec 37:11 services.database.params.storage.rows.mount: got "data"'],
  [SHOP, ['/var/lib/postgresql', '/var/../etc'], 'bad-spec 37:11 services.database.params.storage.rows.mount: got "/var/../etc/data"'],
  [SHOP, ['        rows:\n', '        raws:\n'], 'bad-spec 36:9 services.database.params.storage.raws: there is no such volume'],
  [SHOP, [/ {4}params:\n(?:.*\n){3}/, ''], 'bad-spec 26:3 services.database: the persistent volume rows needs a mount'],
  [
    SHOP,
    ['persistent: true, class', 'persistent: false, class'],
    'bad-spec 66:13 profiles.compute.large.resources.storage[1].attributes: a volume of the class beta3 has persistent: true',
  ],
  [SHOP, ['class: beta3', 'class: floppy'], 'bad-spec 66:45 profiles.compute.large.resources.storage[1].attributes.class: got "floppy"'],
  [SHOP, ['region: us-west', 'region: US West'], 'bad-spec 71:9 profiles.placement.westcoast.attributes.region: got "US West"'],
  [
    TRAINER,
    ['persistent: false', 'persistent: true'],
    'bad-spec 47:15 profiles.compute.trainer.resources.storage[1].attributes.persistent: a volume of the class ram',
  ],
  [
    TRAINER,
    ['mount: /scratch', 'mount: /dev/shm'],
    'bad-spec 17:9 services.trainer.params.storage.scratch: another volume is mounted at /dev/shm already',
  ],
  [
    TRAINER,
    ['name: scratch', 'name: shm'],
    'bad-spec 48:13 profiles.compute.trainer.resources.storage[2]: there are two volumes named shm',
  ],
  [TRAINER, ['units: 4', 'units: 0'], 'bad-spec 31:11 profiles.compute.trainer.resources.gpu.units: attributes without units'],
  [
    TRAINER,
    ['nvidia:', 'voodoo:'],
    'bad-spec 34:15 profiles.compute.trainer.resources.gpu.attributes.vendor.voodoo: due is nvidia, amd or intel',
  ],
  [
    TRAINER,
    ['interface: sxm', 'interface: agp'],
    'bad-spec 37:19 profiles.compute.trainer.resources.gpu.attributes.vendor.nvidia[0].interface: due is pcie or sxm',
  ],
  [TRAINER, ['arch: amd64', 'arch: vax'], 'bad-spec 27:13 profiles.compute.trainer.resources.cpu.attributes.arch: got "vax"'],
  [ENCLAVE, ['"2.1"', '"2.0"'], 'bad-spec 8:7 services.private-model.params.tee: tee belongs to version "2.1"'],
  [ENCLAVE, [/ {8}gpu:\n(?:.*\n){2}/, ''], 'bad-spec 22:5 deployment.private-model.anywhere: the enclave cpu-gpu is asked for'],
  [ENCLAVE, ['min_window: 24h', 'min_window: 1h30m'], 'bad-spec 3:3 reclamation.min_window: got "1h30m"'],
  [ENCLAVE, ['min_window: 24h', 'min_window: 0h'], 'bad-spec 3:3 reclamation.min_window: got "0h"'],
];

for (const [document, [from, to], refusal] of FAULTS) {
  test(`an SDL with ${JSON.stringify(to)} for ${String(from)} is refused: ${refusal}`, () => {
    const changed = document.replace(from, () => to);
    assert.notEqual(changed, document);
    assert.equal(refusalOf(changed).slice(0, refusal.length), refusal);
  });
}

test('aliases that stand for too much are refused, not followed', () => {
  const ports = Array.from({ length: 200 }, (_, index) => `{port: ${index + 1}}`).join(', ');
  const many = Array.from({ length: 100 }, (_, index) => `  s${index}: {image: nginx, expose: *ports}`).join('\n');
  const bomb = `version: "2.0"\nservices:\n  s: {image: nginx, expose: &ports [${ports}]}\n${many}\n`;
  assert.match(refusalOf(bomb), /stands for more than 10000 values/);
});

test('documents that are long, deep or wide are refused at once', () => {
  assert.match(refusalOf(`a: ${'x'.repeat(1 << 20)}`), /at most 131072/);
  assert.match(refusalOf('['.repeat(100_000)), /more than 64 brackets are open/);
  assert.match(refusalOf('- '.repeat(50_000)), /bad-spec/);
  assert.match(refusalOf('? '.repeat(50_000)), /bad-spec/);
  assert.match(refusalOf(Array.from({ length: 10_000 }, (_, index) => `k${index}: {}`).join('\n')), /bad-spec/);
  assert.match(refusalOf(`a: ${'&x '.repeat(10_000)}`), /bad-spec/);
});

test('a document says itself which kind it is', () => {
  assert.equal(parseSpec(WEB).kind, 'deployment');
  assert.equal(parseSpec('job: 1\ncommand: [true]\n').kind, 'job');
  assert.equal(parseSpec('deployment: 1\nimage: nginx:1\n').kind, 'deployment');
});
