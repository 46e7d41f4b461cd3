/** Names of the 90 class numbers of COCO, from 1; ten numbers have no objects in the data set. */
const NAMES = `person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign parking_meter bench bird cat
dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie suitcase frisbee skis snowboard sports_ball kite
baseball_bat baseball_glove skateboard surfboard tennis_racket bottle - wine_glass cup fork knife spoon bowl banana apple sandwich orange
broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed - dining_table - - toilet - tv laptop mouse remote keyboard cell_phone
microwave oven toaster sink refrigerator - book clock vase scissors teddy_bear hair_drier toothbrush`;

/** The name of each of the detector's 90 outputs; undefined where the number stands for nothing. */
export const COCO_NAMES: readonly (string | undefined)[] = NAMES.split(/\s+/).map((name) =>
  name === '-' ? undefined : name.replaceAll('_', ' '),
);

/** The 80 labels that the detector can give. */
export const COCO_LABELS: string[] = COCO_NAMES.flatMap((name) => name ?? []);
