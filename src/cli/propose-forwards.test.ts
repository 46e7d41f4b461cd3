import assert from 'node:assert/strict';
import { test } from 'node:test';
import { proposeForwards } from './propose-forwards.ts';

test('each rental gets the command that brings its ports here: at the port that is proposed, above root’s, and no port twice', () => {
  const web = {
    rentalId: 7n,
    ports: [
      { port: 3000, as: 80 },
      { port: 9100, as: 9100 },
    ],
  };
  const again = { rentalId: 8n, ports: [{ port: 3000, as: 80 }] };
  const last = {
    rentalId: 9n,
    ports: [
      { port: 1, as: 65_535 },
      { port: 2, as: 65_535 },
    ],
  };
  const silent = { rentalId: 10n, ports: [] };
  assert.deepEqual(
    proposeForwards([web, again, last, silent]).map(({ forward }) => forward),
    ['millrace forward 7 8080:3000 9100:9100', 'millrace forward 8 8081:3000', 'millrace forward 9 65535:1 1024:2', undefined],
  );
});
