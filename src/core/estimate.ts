/**
 * What a request will weigh, before anybody has counted its tokens: the prompt by learned tokens
 * per byte of body, the answer by the 90th percentile of what this key got from this model. The
 * client's own cap counts where it gives one; none is demanded.
 */

export type Expected = { readonly prompt: number; readonly completion: number }

export type Question = {
  readonly key: string
  readonly model: string
  readonly bodyBytes: number
  /** The larger of `max_tokens` and `max_completion_tokens`, or null. */
  readonly maxTokens: number | null
  readonly choices: number
}

export type Lesson = Omit<Question, 'maxTokens'> & {
  readonly promptTokens: number
  readonly completionTokens: number
}

/** English is near 4 bytes a token; JSON around it and other scripts bring it near 3. */
const TOKENS_PER_BYTE = 1 / 3
const LEARNING = 0.1
/** Answers of chat models that have not been seen: between a short one and a long one. */
const COMPLETION_UNSEEN = 512
/** Beyond every limit that a manifest may state times a thousand; and still exact. */
const COMPLETION_MAX = 1e15
const REMEMBERED = 32
const QUANTILE = 0.9
/** Pairs of key and model; the one that learned longest ago is forgotten. */
const PAIRS_MAX = 4096
const MODELS_MAX = 1024

export class Estimator {
  readonly #perByte = new Map<string, number>()
  readonly #answers = new Map<string, Answers>()

  /** Whole tokens; the prompt is at least one. */
  expect({ key, model, bodyBytes, maxTokens, choices }: Question): Expected {
    const perByte = this.#perByte.get(model) ?? TOKENS_PER_BYTE
    const seen = this.#answers.get(pair(key, model)) ?? this.#answers.get(pair('', model))
    const likely = seen?.high ?? COMPLETION_UNSEEN
    const one = maxTokens === null ? likely : Math.min(maxTokens, likely)
    return {
      prompt: Math.max(1, Math.ceil(bodyBytes * perByte)),
      completion: Math.min(COMPLETION_MAX, Math.ceil(one * choices)),
    }
  }

  learn({ key, model, bodyBytes, choices, promptTokens, completionTokens }: Lesson): void {
    if (bodyBytes > 0 && promptTokens > 0) {
      const before = this.#perByte.get(model)
      const now = promptTokens / bodyBytes
      const next = before === undefined ? now : before + LEARNING * (now - before)
      remember(this.#perByte, { key: model, value: next, max: MODELS_MAX })
    }
    for (const name of [pair(key, model), pair('', model)]) {
      const answers = this.#answers.get(name) ?? new Answers()
      answers.add(completionTokens / choices)
      remember(this.#answers, { key: name, value: answers, max: PAIRS_MAX })
    }
  }
}

class Answers {
  readonly #recent: number[] = []
  #next = 0
  high = 0

  add(tokens: number): void {
    this.#recent[this.#next] = tokens
    this.#next = (this.#next + 1) % REMEMBERED
    const sorted = this.#recent.toSorted((a, b) => a - b)
    this.high = sorted[Math.ceil(sorted.length * QUANTILE) - 1] ?? 0
  }
}

const pair = (key: string, model: string): string => `${key}\n${model}`

type Entry<Value> = { readonly key: string; readonly value: Value; readonly max: number }

/** A map keeps the order of insertion: the oldest comes first. */
const remember = <Value>(map: Map<string, Value>, { key, value, max }: Entry<Value>): void => {
  map.delete(key)
  map.set(key, value)
  if (map.size <= max) return
  const oldest = map.keys().next().value
  if (oldest !== undefined) map.delete(oldest)
}
