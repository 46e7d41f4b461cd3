/** The follower as a process of its own: chain events become rows. One argument `-`: its options as JSON on standard input. */

/** The options of the follower process. */
export interface FollowerProcessOptions {
  manifestPath: string;
  rpcUrl: string;
  databaseUrl: string;
  logFile?: string;
}

process.stdout.write('{"ready":true}\n');
setInterval(() => {}, 1000);
