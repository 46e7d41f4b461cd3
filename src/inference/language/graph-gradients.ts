import { MillraceError } from '../../errors.ts';
import type { Graph, GraphTensor } from './graph.ts';

/**
 * Adds the backward pass of a scalar loss to its graph (reverse-mode differentiation over the tape) and gives the gradient of each
 * parameter, in the order asked for.
 * @throws graph-loss-not-scalar, graph-gradient-missing when the loss does not depend on a parameter
 */
export function gradients(graph: Graph, loss: GraphTensor, parameters: readonly GraphTensor[]): GraphTensor[] {
  if (loss.shape.length !== 0) {
    throw new MillraceError('graph-loss-not-scalar', {
      actor: 'bug',
      message: `Got a loss of shape [${loss.shape.join(', ')}], expected one number`,
      values: { shape: loss.shape.map(String) },
    });
  }
  const found = new Map<string, GraphTensor>([[loss.name, graph.scalar(1)]]);
  for (const { result, inputs, backward } of graph.tape.toReversed()) {
    const gradient = found.get(result.name);
    if (gradient === undefined) continue;
    for (const [at, part] of backward(gradient).entries()) {
      const input = inputs[at] as GraphTensor;
      if (part === undefined || !input.needsGradient) continue;
      const before = found.get(input.name);
      found.set(input.name, before === undefined ? part : graph.node('Add', [before, part], input.shape));
    }
  }
  return parameters.map(({ name }) => {
    const gradient = found.get(name);
    if (gradient !== undefined) return gradient;
    throw new MillraceError('graph-gradient-missing', { actor: 'bug', message: `The loss does not depend on ${name}`, values: { name } });
  });
}
