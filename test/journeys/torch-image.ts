/** An image with torch for journeys, made of this machine's Debian packages (python3-torch), without a registry; and a program that trains. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const PYTHON = '/usr/bin/python3.11';
/** Debian's Python, whatever another one on PATH says. */
const PACKAGES = '/usr/lib/python3/dist-packages';
const NEEDED = ['torch', 'numpy', 'typing_extensions.py'];
const PROGRAMS = ['/bin/sh', '/bin/cat', '/bin/sleep', '/bin/ls', PYTHON];

const KEPT_LIBRARIES = new Set(['libtorch_global_deps.so']);

/** Why no such image can be made here; undefined when it can. */
export function missingForTorch(): string | undefined {
  const isThere = existsSync(PYTHON) && NEEDED.every((name) => existsSync(join(PACKAGES, name)));
  return isThere ? undefined : 'Debian’s python3-torch is not installed (apt-get install python3-torch)';
}

/**
 * Four processes learn a small regression by gloo's all-reduce, each on its quarter of the data. Every tenth step rank 0 leaves a checkpoint; a
 * new start goes on from the newest, which rank 0 reads and sends to the others. The sum of all gradients is the same for any number of
 * processes, so the result can be compared with one process that was never interrupted.
 */
export const TRAIN_PROGRAM = `
import os, time, glob
begun = time.time()
import torch, torch.distributed as dist
loaded = time.time()
rank, world = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
folder, steps, pause = os.environ['MILLRACE_CHECKPOINTS'], int(os.environ['STEPS']), float(os.environ['PAUSE'])
holds = dict(hold.split('=') for hold in os.environ.get('HOLDS', '').split(',') if hold)
generation = os.environ.get('MILLRACE_GENERATION', '0')
torch.set_num_threads(1)
def say(*words): print('generation', generation, 'rank', rank, *words, flush=True)
if world > 1: dist.init_process_group('gloo', rank=rank, world_size=world)
torch.manual_seed(7)
inputs = torch.randn(256, 32, dtype=torch.float64)
targets = torch.sin(inputs @ torch.randn(32, 1, dtype=torch.float64))
model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)).double()
start = torch.zeros(1, dtype=torch.int64)
found = sorted(glob.glob(folder + '/step-*.pt'))
if rank == 0 and found:
    state = torch.load(found[-1])
    model.load_state_dict(state['model'])
    start[0] = state['step']
if world > 1:
    dist.broadcast(start, 0)
    for parameter in model.parameters(): dist.broadcast(parameter.data, 0)
say('starts at step', int(start), 'begun %.1f loaded %.1f joined %.1f' % (begun, loaded, time.time()))
share = slice(rank * 256 // world, (rank + 1) * 256 // world)
for step in range(int(start) + 1, steps + 1):
    model.zero_grad()
    loss = ((model(inputs[share]) - targets[share]) ** 2).sum() / 256
    loss.backward()
    whole = loss.detach().clone()
    if world > 1: dist.all_reduce(whole)
    with torch.no_grad():
        for parameter in model.parameters():
            if world > 1: dist.all_reduce(parameter.grad)
            parameter -= 0.05 * parameter.grad
    if rank == 0 and step % 10 == 0:
        name = folder + '/writing.tmp'
        torch.save({'step': step, 'model': model.state_dict()}, name)
        os.replace(name, folder + '/step-%06d.pt' % step)
        say('step', step, 'loss', '%.12f' % float(whole))
    # At a step that is named the journey says when to go on, so that what it does falls into the training on a slow machine too.
    while rank == 0 and str(step) in holds and not os.path.exists(folder + '/' + holds[str(step)]): time.sleep(0.1)
    time.sleep(pause)
say('done', 'sum', '%.9f' % sum(float(parameter.double().abs().sum()) for parameter in model.parameters()))
`;

/** Writes the image's archive into a folder, about 0.6 GB, and gives its path. */
export function makeTorchImage(folder: string): string {
  const root = join(folder, 'torch-root');
  const copy = (path: string, options: string) => {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    // Debian’s torch has links into packages that are for developers only and need not be there.
    spawnSync('cp', [options, path, join(root, path)]);
  };
  for (const name of NEEDED) copy(join(PACKAGES, name), '-RL');
  copy('/usr/lib/python3.11', '-R');
  // Debian’s torch finds its libraries among the system’s; what it has of them by itself are second copies, but for the one that it opens by path.
  const own = join(root, PACKAGES, 'torch/lib');
  for (const name of readdirSync(own)) if (!KEPT_LIBRARIES.has(name)) rmSync(join(own, name), { recursive: true });
  for (const name of ['torch/include', 'torch/test', 'numpy/core/include'])
    rmSync(join(root, PACKAGES, name), { recursive: true, force: true });
  for (const program of PROGRAMS) copy(program, '-L');
  const modules = execFileSync('find', [join(root, 'usr/lib'), '-name', '*.so*', '-type', 'f'], { encoding: 'utf8' })
    .trim()
    .split('\n');
  const binaries = [...modules.map((path) => path.slice(root.length)), ...PROGRAMS];
  for (const library of new Set(binaries.flatMap(librariesOf))) if (!existsSync(join(root, library))) copy(library, '-L');
  for (const name of ['proc', 'dev', 'tmp', 'input', 'output', 'etc', 'sys']) mkdirSync(join(root, name), { recursive: true });
  writeFileSync(join(root, 'train.py'), TRAIN_PROGRAM);
  const archive = join(folder, 'torch.tar');
  execFileSync('tar', ['-C', root, '-cf', archive, ...readdirSync(root)]);
  execFileSync('rm', ['-rf', root]);
  return archive;
}

/** What one uninterrupted process prints at its end, on this machine's own Python. */
export function trainAlone(folder: string, steps: number): string {
  const env = { PATH: '/usr/bin:/bin', RANK: '0', WORLD_SIZE: '1', MILLRACE_CHECKPOINTS: folder, STEPS: String(steps), PAUSE: '0' };
  mkdirSync(folder, { recursive: true });
  return execFileSync(PYTHON, ['-c', TRAIN_PROGRAM], { env, encoding: 'utf8' });
}

function librariesOf(path: string): string[] {
  const { stdout } = spawnSync('ldd', [path], { encoding: 'utf8' });
  return [...stdout.matchAll(/(\/\S+\.so\S*)/g)].map(([, found]) => found as string);
}
