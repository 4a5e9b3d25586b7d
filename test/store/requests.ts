import type { FinishedRequest } from '../../src/core/snapshot.ts'

export const finished = (id: string, over: Partial<FinishedRequest> = {}): FinishedRequest => ({
  id,
  acceptedAtMs: 1_700_000_000_000,
  path: '/v1/chat/completions',
  consumer: 'team-a',
  key: 'key_1',
  modelAsked: 'qwq-32b',
  modelServed: 'qwq-32b',
  deployment: 'qwq-32b',
  replica: 'qwq-32b/0',
  stream: true,
  status: 200,
  outcome: 'ok',
  reason: 'stop',
  promptTokens: 12,
  completionTokens: 34,
  cachedTokens: null,
  reasoningTokens: 20,
  ttftMs: 123.5,
  durationMs: 2345.25,
  ...over,
})
