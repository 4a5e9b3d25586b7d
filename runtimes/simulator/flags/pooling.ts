/** Which of the flags make a model one that pools, and what its overridden configuration says. */
import { isRecord } from '../rehearsal.ts'
import type { Pooling } from '../settings.ts'
import type { Flags } from './argparse.ts'

/** transformers' PretrainedConfig has two labels where nobody says otherwise. */
const LABELS = 2

/** vLLM: `--runner pooling`, or a `--convert` to something (config/model.py, _get_runner_type). */
export const vllmPooling = (flags: Flags): { readonly pooling?: Pooling } => {
  const runner = flags.text('--runner') ?? 'auto'
  const convert = flags.text('--convert') ?? 'auto'
  const converts = convert === 'embed' || convert === 'classify'
  if (runner !== 'pooling' && !(runner === 'auto' && converts)) return {}
  const task = convert === 'classify' ? 'classify' : 'embed'
  return { pooling: poolingOf(task, flags.text('--hf-overrides')) }
}

/** SGLang: `--is-embedding`; a configuration with labels is one that classifies. */
export const sglangPooling = (flags: Flags): { readonly pooling?: Pooling } => {
  if (!flags.on('--is-embedding')) return {}
  const text = flags.text('--json-model-override-args')
  const labels = configOf(text).num_labels
  return { pooling: poolingOf(typeof labels === 'number' ? 'classify' : 'embed', text) }
}

const poolingOf = (task: Pooling['task'], overrides: string | null): Pooling => {
  const config = configOf(overrides)
  const { matryoshka_dimensions: sizes, num_labels: labels } = config
  const known = Array.isArray(sizes) ? sizes.filter((size) => typeof size === 'number') : []
  return {
    task,
    classes: typeof labels === 'number' && labels >= 1 ? Math.floor(labels) : LABELS,
    dimensions: known.length > 0 || config.is_matryoshka === true ? known : null,
  }
}

/** Anything but a JSON object overrides nothing. */
const configOf = (text: string | null): Readonly<Record<string, unknown>> => {
  try {
    const value: unknown = JSON.parse(text ?? '{}')
    return isRecord(value) ? value : {}
  } catch {
    // What is wrong with it would be said by transformers, whose words are not played.
    return {}
  }
}
