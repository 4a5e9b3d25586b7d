/**
 * `extraArguments` of a manifest against what Penstock sets itself. The two engines parse with
 * argparse: `--flag value`, `--flag=value`, short forms with the value attached (`-n2`), long flags
 * cut to an unambiguous beginning, and (vLLM) `_` for `-`. A flag set twice would silently win over
 * the plan, so each such way is refused. Refuses to know which flags exist: the engine says so.
 */

/** A flag that is not the operator's to give: all its spellings, and what to do instead. */
export type OwnedFlag = { readonly names: readonly string[]; readonly instead: string }

/** One sentence for each argument that contradicts; empty when there is none. */
export const contradictionsIn = (
  extra: readonly string[],
  owned: readonly OwnedFlag[],
): readonly string[] => {
  const flags = owned.flatMap(({ names, instead }) => names.map((name) => ({ name, instead })))
  return extra.flatMap((argument) => {
    const [flag = ''] = argument.split('=', 1)
    if (/^--?[A-Za-z]\S*\s/.test(flag)) {
      return [`${shown(argument)} is one argument with a space in it: write flag and value as two`]
    }
    const found = flags.find(({ name }) => means(flag, name))
    return found === undefined ? [] : [`${shown(argument)}: ${found.instead}`]
  })
}

const shown = (argument: string): string => JSON.stringify(argument.slice(0, 100))

/** Shorter beginnings than this are ambiguous in both engines' parsers. */
const ABBREVIATION_MIN = 5

const means = (flag: string, name: string): boolean => {
  if (!flag.startsWith('--')) {
    // Short forms: `-n`, and `-n2`; `-tp`, and `-tp8`. The rest must be a number, or it is another.
    return !name.startsWith('--') && flag.startsWith(name) && /^\d*$/.test(flag.slice(name.length))
  }
  // `--compilation-config.mode`: the part before the dot is the flag.
  const [long = ''] = flag.replaceAll('_', '-').split('.', 1)
  return long === name || (long.length >= ABBREVIATION_MIN && name.startsWith(long))
}

/** Variables that identify a rank or choose its devices: set by Penstock, on any engine. */
const OWNED_VARIABLES: Readonly<Record<string, string>> = {
  CUDA_VISIBLE_DEVICES: 'Penstock gives out the GPUs',
  NVIDIA_VISIBLE_DEVICES: 'Penstock gives out the GPUs',
  HF_HUB_OFFLINE: 'set weights.offline',
}

/** The same for `environment`; anything else that a manifest sets there wins over Penstock's. */
export const variableContradictions = (
  environment: Readonly<Record<string, string>>,
  owned: Readonly<Record<string, string>>,
): readonly string[] =>
  Object.keys(environment).flatMap((name) => {
    const why = name.startsWith('PENSTOCK_')
      ? 'reserved for Penstock'
      : (owned[name] ?? OWNED_VARIABLES[name])
    return why === undefined ? [] : [`environment ${name}: ${why}`]
  })
