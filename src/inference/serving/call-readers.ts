import type { Call, CallInput } from './call.ts';
import { readChatCall } from './chat.ts';
import {
  readEmbeddingCall,
  readImageGenerationCall,
  readModerationCall,
  readSpeechCall,
  readTaskCall,
  readTranscriptionCall,
} from './other-calls.ts';
import { readResponsesCall } from './responses.ts';

/** Understands the body of a request. */
export type ReadCall = (input: CallInput) => Call | Promise<Call>;

const READERS: Record<string, ReadCall> = {
  '/v1/chat/completions': readChatCall,
  '/v1/responses': readResponsesCall,
  '/v1/embeddings': readEmbeddingCall,
  '/v1/audio/speech': readSpeechCall,
  '/v1/audio/transcriptions': readTranscriptionCall,
  '/v1/moderations': readModerationCall,
  '/v1/images/generations': readImageGenerationCall,
};

/** Who understands requests to a path; undefined where no model is asked there. */
export function callReaderOf(path: string): ReadCall | undefined {
  if (Object.hasOwn(READERS, path)) return READERS[path];
  return path.startsWith('/v1/tasks/') ? readTaskCall : undefined;
}
