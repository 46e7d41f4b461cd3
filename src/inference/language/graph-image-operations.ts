import { fixedShape, type Graph, type GraphTensor } from './graph.ts';

/** How a convolution steps and how much zero it puts around the image, both the same along height and width. */
export interface ConvolutionSettings {
  stride: number;
  padding: number;
}

/** Convolution of images `[count, channels, height, width]` with kernels `[outputs, channels, rows, columns]`. */
export function convolve(graph: Graph, images: GraphTensor, kernels: GraphTensor, { stride, padding }: ConvolutionSettings): GraphTensor {
  const [count, , height, width] = fixedShape(images.shape) as [number, number, number, number];
  const [outputs, , rows, columns] = fixedShape(kernels.shape) as [number, number, number, number];
  const high = Math.floor((height + 2 * padding - rows) / stride) + 1;
  const wide = Math.floor((width + 2 * padding - columns) / stride) + 1;
  const pads = [padding, padding, padding, padding];
  const attributes = { strides: [stride, stride], pads, kernel_shape: [rows, columns] };
  const result = graph.node('Conv', [images, kernels], [count, outputs, high, wide], { attributes });
  return graph.record(result, [images, kernels], (gradient) => {
    const rest = [height - ((high - 1) * stride - 2 * padding + rows), width - ((wide - 1) * stride - 2 * padding + columns)];
    const forImages = () =>
      graph.node('ConvTranspose', [gradient, kernels], images.shape, { attributes: { ...attributes, output_padding: rest } });
    return [
      images.needsGradient ? forImages() : undefined,
      kernels.needsGradient ? kernelGradient(graph, { images, kernels, gradient, stride, pads }) : undefined,
    ];
  });
}

/** The largest of each 2 × 2 square of images with even height and width. A tie gives its gradient to every winner. */
export function poolLargest(graph: Graph, images: GraphTensor): GraphTensor {
  const [count, channels, height, width] = fixedShape(images.shape) as [number, number, number, number];
  const attributes = { kernel_shape: [2, 2], strides: [2, 2] };
  const result = graph.node('MaxPool', [images], [count, channels, height / 2, width / 2], { attributes });
  return graph.record(result, [images], (gradient) => {
    const isWinner = graph.node('Equal', [images, stretch(graph, result, images)], images.shape, { type: 'bool' });
    const mask = graph.node('Cast', [isWinner], images.shape, { attributes: { to: 1 } });
    return [graph.node('Mul', [stretch(graph, gradient, images), mask], images.shape)];
  });
}

/** A convolution of the images with the gradients as kernels, channels and count changing places, the stride becoming a dilation. */
function kernelGradient(
  graph: Graph,
  parts: { images: GraphTensor; kernels: GraphTensor; gradient: GraphTensor; stride: number; pads: number[] },
): GraphTensor {
  const { images, kernels, gradient, stride, pads } = parts;
  const [count, channels, height, width] = fixedShape(images.shape) as [number, number, number, number];
  const [, outputs, high, wide] = fixedShape(gradient.shape) as [number, number, number, number];
  const [, , rows, columns] = fixedShape(kernels.shape) as [number, number, number, number];
  const swap = { attributes: { perm: [1, 0, 2, 3] } };
  const turned = graph.node('Transpose', [images], [channels, count, height, width], swap);
  const weights = graph.node('Transpose', [gradient], [outputs, count, high, wide], swap);
  const reach = (length: number, steps: number) => length + 2 * (pads[0] as number) - (steps - 1) * stride;
  const shape = [channels, outputs, reach(height, high), reach(width, wide)];
  const attributes = { strides: [1, 1], dilations: [stride, stride], pads, kernel_shape: [high, wide] };
  const whole = graph.node('Conv', [turned, weights], shape, { attributes });
  const bounds = [
    [0, 0],
    [rows, columns],
    [2, 3],
  ].map((values) => graph.integers(values));
  const cut = graph.node('Slice', [whole, ...bounds], [channels, outputs, rows, columns]);
  return graph.node('Transpose', [cut], kernels.shape, swap);
}

/** Each element as a 2 × 2 square. */
function stretch(graph: Graph, small: GraphTensor, like: GraphTensor): GraphTensor {
  const [count, channels, height, width] = fixedShape(like.shape) as [number, number, number, number];
  const split = graph.node(
    'Reshape',
    [small, graph.integers([count, channels, height / 2, 1, width / 2, 1])],
    [count, channels, height / 2, 1, width / 2, 1],
  );
  const tall = [count, channels, height / 2, 2, width / 2, 2];
  const spread = graph.node('Expand', [split, graph.integers(tall)], tall);
  return graph.node('Reshape', [spread, graph.integers(fixedShape(like.shape))], like.shape);
}
