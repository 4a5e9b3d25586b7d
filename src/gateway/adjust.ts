/** A request's body as its route and its consumer let it be, before anything is counted. */
import { type Ask, readAsk } from '../core/body.ts'
import { applyEdits } from '../core/edits.ts'
import { adjustParameters, changesText } from '../core/parameters.ts'
import type { GatewayConsumer, GatewayRoute } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'
import type { Ticket } from './ticket.ts'

export type Asked = {
  readonly body: Uint8Array
  readonly ask: Ask
  /** That was asked for: its rules hold whoever answers in its place. */
  readonly route: GatewayRoute
  /** Null: gateway.yaml says nothing of this consumer. */
  readonly consumer: GatewayConsumer | null
}

/** Tells the ticket what was changed. Throws invalid_request with the parameter's name. */
export const adjusted = (
  ticket: Ticket,
  { body, ask, route, consumer }: Asked,
): Pick<Asked, 'body' | 'ask'> => {
  const rules = [route.policy?.parameters, consumer?.parameters].filter(
    (one) => one !== undefined && one !== null,
  )
  // A form's fields are not JSON, and what rules can name is not in one.
  const { path, protocol } = ticket
  if (rules.length === 0 || protocol.body !== 'json') return { body, ask }
  const { start } = ask
  const defaults = protocol.weighs === 'answer' || protocol.weighs === 'prompt'
  const where = { body, start, path, context: route.context }
  const answer = adjustParameters({ ...where, rules, defaults })
  if (!answer.ok)
    throw new PenstockError('invalid_request', answer.message, { param: answer.param })
  if (answer.edits.length === 0) return { body, ask }
  const changed = applyEdits(body, answer.edits)
  const again = readAsk(changed, protocol)
  // Defaults may hold anything: a manifest's `stream: "yes"` is refused like a client's.
  if ('message' in again) {
    const { message, param } = again
    throw new PenstockError('invalid_request', message, param === null ? {} : { param })
  }
  ticket.parameters = changesText(answer.changes)
  return { body: changed, ask: again }
}
