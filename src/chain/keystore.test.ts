import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createKeystore, exportKeystore, importKeystore, keystoreAddress, openKeystore } from './keystore.ts';

const folder = () => mkdtempSync(join(tmpdir(), 'millrace-keystore-'));
const privateKey = `0x${'7a'.repeat(32)}` as const;
const password = 'correct horse';

// The two test vectors of the Web3 Secret Storage definition, password "testpassword".
const VECTOR_KEY_ADDRESS = '0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b';
const VECTORS = {
  pbkdf2: `{"address":"008aeeda4d805471df9b2a5b0f38a0c3bcba786b","crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},"ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2","kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},"mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`,
  scrypt: `{"address":"008aeeda4d805471df9b2a5b0f38a0c3bcba786b","crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"83dbcc02d8ccb40e466191a123791e0e"},"ciphertext":"d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c","kdf":"scrypt","kdfparams":{"dklen":32,"n":262144,"r":1,"p":8,"salt":"ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"},"mac":"2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`,
};

test('a key comes back from its file with the password, and the file is for the owner only', async () => {
  const path = join(folder(), 'keys', 'ann.json');
  const created = await createKeystore({ path, password, privateKey, strength: 'light' });
  const opened = await openKeystore({ path, password });
  assert.equal(opened.address, created.address);
  assert.equal(keystoreAddress(path).toLowerCase(), created.address.toLowerCase());
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.ok(!readFileSync(path, 'utf8').includes('7a7a7a7a'));
  assert.equal(readdirSync(join(path, '..')).length, 1);
});

test('a created key is new every time', async () => {
  const place = folder();
  const first = await createKeystore({ path: join(place, 'a.json'), password, strength: 'light' });
  const second = await createKeystore({ path: join(place, 'b.json'), password, strength: 'light' });
  assert.notEqual(first.address, second.address);
});

test('the vectors of the Web3 Secret Storage definition are read', async () => {
  for (const [name, text] of Object.entries(VECTORS)) {
    const path = join(folder(), `${name}.json`);
    const signer = await importKeystore({ text, password: 'testpassword', newPassword: password, path, strength: 'light' });
    assert.equal(signer.address, VECTOR_KEY_ADDRESS);
    assert.equal((await openKeystore({ path, password })).address, VECTOR_KEY_ADDRESS);
  }
});

test('a wrong password is a typed error that shows neither password', async () => {
  const path = join(folder(), 'ann.json');
  await createKeystore({ path, password, strength: 'light' });
  await assert.rejects(openKeystore({ path, password: 'battery staple' }), (error: Error & { code?: string; actor?: string }) => {
    assert.equal(error.code, 'wrong-password');
    assert.equal(error.actor, 'caller');
    assert.ok(!JSON.stringify(error).includes('battery'));
    return true;
  });
});

test('an exported keystore opens elsewhere with the same password', async () => {
  const path = join(folder(), 'ann.json');
  const signer = await createKeystore({ path, password, strength: 'light' });
  const text = await exportKeystore({ path, password });
  const imported = await importKeystore({ text, password, path: join(folder(), 'copy.json'), strength: 'light' });
  assert.equal(imported.address, signer.address);
  await assert.rejects(exportKeystore({ path, password: 'battery staple' }), { code: 'wrong-password' });
});

test('an existing file is not overwritten, and a short password is refused before anything is written', async () => {
  const path = join(folder(), 'ann.json');
  await assert.rejects(createKeystore({ path, password: 'short', strength: 'light' }), { code: 'weak-password' });
  assert.ok(!existsSync(path));
  await createKeystore({ path, password, strength: 'light' });
  const before = readFileSync(path, 'utf8');
  await assert.rejects(createKeystore({ path, password, strength: 'light' }), { code: 'keystore-exists' });
  assert.equal(readFileSync(path, 'utf8'), before);
});

test('a file that others may read is refused with the command that mends it', async () => {
  const path = join(folder(), 'ann.json');
  await createKeystore({ path, password, strength: 'light' });
  chmodSync(path, 0o644);
  await assert.rejects(openKeystore({ path, password }), { code: 'keystore-open-to-others' });
});

test('missing, broken and hostile files are typed errors before any costly work', async () => {
  const place = folder();
  await assert.rejects(openKeystore({ path: join(place, 'none.json'), password }), { code: 'keystore-missing' });
  const good = JSON.parse(VECTORS.scrypt);
  const broken: unknown[] = [
    'not json',
    {},
    { ...good, version: 1 },
    { ...good, address: 'zz' },
    { ...good, crypto: { ...good.crypto, cipher: 'none' } },
    { ...good, crypto: { ...good.crypto, kdf: 'md5' } },
    { ...good, crypto: { ...good.crypto, kdfparams: { ...good.crypto.kdfparams, n: 2 ** 30 } } },
    { ...good, crypto: { ...good.crypto, kdfparams: { ...good.crypto.kdfparams, n: 1000 } } },
    { ...good, crypto: { ...good.crypto, kdfparams: { ...good.crypto.kdfparams, p: 1e9 } } },
    { ...good, crypto: { ...good.crypto, mac: '00' } },
    { ...good, crypto: { ...good.crypto, cipherparams: null } },
    'x'.repeat(20_000),
  ];
  for (const [index, content] of broken.entries()) {
    const path = join(place, `${index}.json`);
    writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content), { mode: 0o600 });
    await assert.rejects(openKeystore({ path, password: 'testpassword' }), { code: 'bad-keystore' }, `case ${index}`);
  }
});

test('a keystore whose address is not that of the key inside is refused', async () => {
  const path = join(folder(), 'swapped.json');
  writeFileSync(path, VECTORS.scrypt.replace('008aeeda', '118aeeda'), { mode: 0o600 });
  await assert.rejects(openKeystore({ path, password: 'testpassword' }), { code: 'bad-keystore' });
});
