/** What the process in a job's network is asked. */
export interface LoopbackCall {
  id: number;
  port: number;
}

/** What it answers; one without `fault`, the code of the system's error, comes with the connected socket. */
export interface LoopbackAnswer {
  id: number;
  fault?: string;
}

/** The descriptor by which it was brought into the network. */
export const NETWORK_FD = 4;
/** That of the user namespace; an ordinary user's process alone has it. */
export const USER_FD = 5;
