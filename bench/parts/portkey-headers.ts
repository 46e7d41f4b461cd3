/**
 * Loaded before `@portkey-ai/gateway`, which fails on every stream with `TypeError: immutable`: the `Response` that it puts in the place of
 * Node's own keeps the immutable headers of a fetched answer, and it then adds to them. This gives it a copy of the headers.
 */
const define = Object.defineProperty;

interface Init {
  status?: number;
  statusText?: string;
  headers?: Headers;
}

Object.defineProperty = <T>(target: T, name: PropertyKey, descriptor: PropertyDescriptor): T => {
  if ((target as unknown) !== globalThis || name !== 'Response') return define(target, name, descriptor);
  const value = new Proxy(descriptor.value as new () => Response, {
    construct(own, [body, init]: [unknown, Init | undefined]) {
      const copied =
        init?.headers === undefined ? init : { status: init.status, statusText: init.statusText, headers: new Headers(init.headers) };
      return Reflect.construct(own, [body, copied]) as Response;
    },
  });
  return define(target, name, { ...descriptor, value });
};
