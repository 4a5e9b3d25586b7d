/** How a target is asked: our own engine as it is, another's service as its owner says. */
import type { Target } from '../core/snapshot.ts'

export type Upstream = { readonly path: string; readonly headers: string[] }

/** A backend has our paths under its own, and our key with it, never the client's. */
export const upstreamOf = ({ backend }: Target, { path, headers }: Upstream): Upstream => {
  if (backend === undefined) return { path, headers }
  const { basePath, authorization } = backend
  return {
    path: basePath + path.slice('/v1'.length),
    headers: authorization === null ? headers : [...headers, 'authorization', authorization],
  }
}
