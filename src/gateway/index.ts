/** HTTP for programs and people of this machine: an S3 endpoint, and web links to public content. */

export { openS3Keys } from './s3-keys.ts';
export { exportS3Index, keysPath, restoreS3Index, s3Status, startS3Server } from './s3-server.ts';
export { createStorageNetwork } from './storage-network.ts';
export { startWebServer } from './web-server.ts';
