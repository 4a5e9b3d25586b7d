/** The request as one route's engine gets it. Asked again for each other route that is tried. */
import type { Ask } from '../core/body.ts'
import { applyEdits } from '../core/edits.ts'
import { enginePath, type Protocol } from '../core/protocol.ts'
import type { GatewayRoute } from '../core/snapshot.ts'
import { UsageStrip, usageEdit } from '../core/usage-strip.ts'

export type Prepared = {
  /** The engine's own path. */
  readonly path: string
  /** Null: the request has none. */
  readonly body: Uint8Array | null
  /** Takes out the usage that only we asked for; null: nothing to take out. */
  readonly strip: UsageStrip | null
}

export type Request = {
  readonly protocol: Protocol
  readonly body: Uint8Array
  readonly ask: Ask
}

/** The engine's own path, its own name of the model, and our wish for usage. */
export const prepare = ({ protocol, body, ask }: Request, route: GatewayRoute): Prepared => {
  // A service that we do not run may know only OpenAI's own options.
  const how = { start: ask.start, continuous: route.models === undefined }
  const usage = ask.stream ? usageEdit(body, ask.usage, how) : null
  const { servedModel, engine } = route
  const name = Buffer.from(protocol.body === 'form' ? servedModel : JSON.stringify(servedModel))
  const model = servedModel === ask.model ? null : { range: ask.modelRange, insert: name }
  const edits = [model, usage].filter((edit) => edit !== null)
  const result = edits.length === 0 ? body : applyEdits(body, edits)
  return {
    // Whoever lacks the path was not chosen (offer.ts).
    path: enginePath(protocol, engine) ?? protocol.path,
    body: ask.start === 0 ? result : result.subarray(ask.start),
    strip: usage === null ? null : new UsageStrip(engine, ask.usage.last),
  }
}

/** Another of our own replicas could go on with an answer that one leaves unfinished. */
export const mayContinue = ({ policy, targets }: GatewayRoute): boolean =>
  policy?.continueStreams !== false &&
  targets.filter(({ state, backend }) => state === 'ready' && backend === undefined).length > 1
