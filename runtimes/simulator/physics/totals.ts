/** What an engine has done since it started. */
export type Totals = {
  promptTokens: number
  generationTokens: number
  preemptions: number
  prefixQueries: number
  prefixHits: number
  /** Prompt tokens that came from the cache at first admission. */
  cachedTokens: number
  steps: number
}

export const noTotals = (): Totals => ({
  promptTokens: 0,
  generationTokens: 0,
  preemptions: 0,
  prefixQueries: 0,
  prefixHits: 0,
  cachedTokens: 0,
  steps: 0,
})
