/** Which of a route's engines have the path that was asked, and the word for those that do not. */
import { enginePath, notOffered, type Protocol } from '../core/protocol.ts'
import { within } from '../core/routing.ts'
import type { GatewayRoute } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'

/** The route with those in its place who have the path, too. Throws not_found with what it has. */
export const offered = (route: GatewayRoute, protocol: Protocol, model: string): GatewayRoute => {
  if (!has(route, protocol)) throw noSuchPath(protocol, model, route.engine)
  if ([...within(route)].every((other) => has(other, protocol))) return route
  const { standIn, fallback, split, ...rest } = route
  const routes = fallback?.routes.filter((other) => has(other, protocol)) ?? []
  return {
    ...rest,
    ...(standIn !== undefined && has(standIn.route, protocol) ? { standIn } : {}),
    ...(fallback === undefined ? {} : { fallback: { ...fallback, routes } }),
    ...(split === undefined ? {} : { split: split.filter((share) => has(share.route, protocol)) }),
  }
}

export const noSuchPath = (protocol: Protocol, model: string, engine: string): PenstockError =>
  new PenstockError('not_found', notOffered(protocol, model, engine), { param: 'model' })

const has = ({ engine, task }: GatewayRoute, protocol: Protocol): boolean =>
  enginePath(protocol, engine) !== null &&
  // SGLang would call it a failure of its own (500: 'text'), and ours to be counted as one.
  (task === undefined || protocol.task === 'any' || protocol.task === task)

/** How a FastAPI application says that it has no such path; models differ in what they have. */
export const isBareNotFound = (status: number, text: string): boolean =>
  status === 404 && /^\s*\{\s*"detail"\s*:\s*"Not Found"\s*\}\s*$/.test(text)
