/** HTTP for programs and people: an S3 endpoint, web links to public content, and OpenAI's API in front of all miners. */

export { type CallerKey, type CallerKeyRules, type CallerKeys, withCallerKeys } from './inference/caller-keys.ts';
export { type InferenceServer, startInferenceServer } from './inference/inference-server.ts';
export { minersOfNetwork } from './inference/network-miners.ts';
export { openReplayCourier, type ReplayCourier } from './inference/replay-courier.ts';
export { type StandingGateway, startStandingGateway } from './inference/standing-gateway.ts';
export { openS3Keys } from './s3-keys.ts';
export { exportS3Index, keysPath, restoreS3Index, s3Status, startS3Server } from './s3-server.ts';
export { createStorageNetwork } from './storage-network.ts';
export { startWebServer } from './web-server.ts';
