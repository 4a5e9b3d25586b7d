import type { FinishedRequest, Outcome } from '../../core/snapshot.ts'
import { clockTime, count, latency, UNKNOWN } from './format.ts'
import { Empty, State } from './parts.tsx'

const TONES = {
  ok: 'ok',
  refused: 'warn',
  client_gone: 'idle',
  upstream_error: 'bad',
  interrupted: 'bad',
  timeout: 'bad',
} as const satisfies Record<Outcome, string>

const COLUMNS = [
  'Time',
  'Consumer',
  'Model asked',
  'Answered by',
  'Status',
  'Outcome',
  'Why',
] as const
const NUMBERS = ['Prompt', 'Completion', 'TTFT', 'Duration'] as const

export const Requests = ({ requests }: { requests: readonly FinishedRequest[] }) => (
  <section aria-labelledby="requests">
    <h2 id="requests">
      Last requests <small>{requests.length}</small>
    </h2>
    {requests.length === 0 ? (
      <Empty>No request has ended yet. The lines under “Call it” send the first one.</Empty>
    ) : (
      <Table requests={requests} />
    )}
  </section>
)

const Table = ({ requests }: { requests: readonly FinishedRequest[] }) => (
  // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must take the keyboard.
  <section class="panel scroll tall" aria-label="Last requests, newest first" tabIndex={0}>
    <table class="requests">
      <thead>
        <tr>
          {COLUMNS.map((name) => (
            <th key={name} scope="col">
              {name}
            </th>
          ))}
          {NUMBERS.map((name) => (
            <th key={name} scope="col" class="number">
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {requests.map((request) => (
          <Row key={request.id} request={request} />
        ))}
      </tbody>
    </table>
  </section>
)

/** `served` differs from `asked` when another model stood in. */
const answeredBy = ({ modelAsked, modelServed, replica }: FinishedRequest): string => {
  if (replica === null) return UNKNOWN
  return modelServed === null || modelServed === modelAsked
    ? replica
    : `${replica} (${modelServed})`
}

const outcome = ({ outcome, reason }: FinishedRequest): string =>
  reason === '' || reason === outcome ? outcome : `${outcome}: ${reason}`

const Row = ({ request }: { request: FinishedRequest }) => (
  <tr title={`request ${request.id} ${request.path}`}>
    <td class="nowrap">{clockTime(request.acceptedAtMs)}</td>
    <td class="cut">{request.consumer ?? UNKNOWN}</td>
    <td class="cut">{request.modelAsked ?? UNKNOWN}</td>
    <td class="cut">{answeredBy(request)}</td>
    <td>{request.status}</td>
    <td class="cut wide" title={request.reason}>
      <State tone={TONES[request.outcome]}>{outcome(request)}</State>
    </td>
    <td class="cut wide" title={request.decision}>
      {request.decision ?? ''}
    </td>
    <td class="number">{count(request.promptTokens)}</td>
    <td class="number">{count(request.completionTokens)}</td>
    <td class="number">{latency(request.ttftMs)}</td>
    <td class="number">{latency(request.durationMs)}</td>
  </tr>
)
