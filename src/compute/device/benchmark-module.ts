/** Steps of the benchmark's module in one segment. */
export const BENCHMARK_STEPS = 8_000_000;

/** The binary form of `benchmark-module.wat`, which says what it does; a test compares the two. */
export const BENCHMARK_MODULE: Uint8Array = Buffer.from(
  'AGFzbQEAAAABFARgAX8Bf2ADf39/AGAAAX5gAX8AAwUEAAECAwUDAQACBg4BfgFCxPT93dyR0JwBCwcnBAhhbGxvY2F0ZQAABWJlZ2luAAEGb3V0cHV0AAIHc2VnbWVudAADCnIE' +
    'BgBBgIAECwIACwQAQggLYQIBfgJ/IwAhAUGApOgDIQMDQCABIAFCDIiFIQEgASABQhmGhSEBIAEgAUIbiIUhASABp0H4/wFxIQIgAiACKQMAIAFCnbqz+5SS/aIlfnw3AwAgA0EB' +
    'ayIDDQALIAEkAAs=',
  'base64',
);
