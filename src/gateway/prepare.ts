/** The request as one route's engine gets it. Asked again for each other route that is tried. */
import { type Ask, splice } from '../core/body.ts'
import type { GatewayRoute } from '../core/snapshot.ts'
import { type Edit, UsageStrip, usageEdit } from '../core/usage-strip.ts'

export type Prepared = {
  readonly body: Uint8Array
  /** Takes out the usage that only we asked for; null: nothing to take out. */
  readonly strip: UsageStrip | null
}

/** The engine's own name of the model, and our wish for usage. */
export const prepare = (body: Uint8Array, ask: Ask, route: GatewayRoute): Prepared => {
  // A service that we do not run may know only OpenAI's own options.
  const how = { start: ask.start, continuous: route.models === undefined }
  const usage = ask.stream && needsUsage(route) ? usageEdit(body, ask.usage, how) : null
  const name = Buffer.from(JSON.stringify(route.servedModel))
  const model = route.servedModel === ask.model ? null : { range: ask.modelRange, insert: name }
  const edits = [model, usage]
    .filter((edit) => edit !== null)
    .toSorted((a, b) => b.range.start - a.range.start)
  // From the end, so that the places of the earlier ones stay right.
  const result = edits.reduce(
    (bytes, { range, insert }: Edit) => splice(bytes, range, insert),
    body,
  )
  return {
    body: ask.start === 0 ? result : result.subarray(ask.start),
    strip: usage === null ? null : new UsageStrip(route.engine, ask.usage.last),
  }
}

/** A limit is settled with it, and an answer that is continued says how much of it there was. */
const needsUsage = (route: GatewayRoute): boolean =>
  (route.limits !== undefined && route.limits.length > 0) || mayContinue(route)

/** Another of our own replicas could go on with an answer that one leaves unfinished. */
export const mayContinue = ({ policy, targets }: GatewayRoute): boolean =>
  policy?.continueStreams !== false &&
  targets.filter(({ state, backend }) => state === 'ready' && backend === undefined).length > 1
