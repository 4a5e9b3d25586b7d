/** What a deployment's command line says of the kind of its model. */
/** vLLM's older names of what a model does that generates nothing; today it is one, `pooling`. */
const TASKS = new Set(['embed', 'embedding', 'classify', 'score', 'reward'])

/** Undefined: it does not say, and the engine decides by the model. */
export const taskOf = (engine: string, extraArguments: readonly string[]): 'pool' | undefined => {
  const words = extraArguments.flatMap((word) => word.split(/[=\s]+/))
  const after = (flag: string) => words[words.indexOf(flag) + 1] ?? ''
  const pools =
    engine === 'sglang'
      ? words.includes('--is-embedding')
      : (words.includes('--runner') && after('--runner') === 'pooling') ||
        (words.includes('--task') && TASKS.has(after('--task')))
  return pools ? 'pool' : undefined
}
