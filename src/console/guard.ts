/**
 * Who may talk to the console. Three checks, none of which trusts the browser alone:
 * the Host header (a page that rebinds its DNS name to this address is refused), the Origin header
 * (another site's page is refused), and the admin key as a bearer. There are no cookies, so a
 * foreign page has nothing to ride on: cross-site request forgery needs ambient authority.
 */
import { isIP } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { AdminPort } from '../core/admin.ts'
import { PenstockError } from '../errors.ts'

export type GuardOptions = {
  /** The address that the console listens on. */
  readonly host: string
  /** Further names that it is reached by, for instance `penstock.example`. */
  readonly names: readonly string[]
}

/** All of 127.0.0.0/8 is loopback (RFC 1122 3.2.1.3); `::ffff:` is IPv4 seen by an IPv6 socket. */
const isLoopback = (address: string): boolean =>
  address === '::1' || /^(::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(address)

/** The name in a Host or Origin authority without its port; null when there is none. */
export const hostName = (authority: string | undefined): string | null => {
  if (authority === undefined) return null
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^:[\]/@\s]+)(:\d{1,5})?$/.exec(authority)
  const name = match?.[1]
  return name === undefined
    ? null
    : name
        .replace(/^\[|\]$/g, '')
        .toLowerCase()
        .replace(/\.$/, '')
}

/**
 * The port is left out on purpose: `ssh -L 9001:localhost:8001` is how operators come in, and
 * rebinding changes the name, never the port. On a wildcard address any IP literal is this
 * machine's: a literal cannot be rebound.
 */
export const hostAllowed = (name: string, options: GuardOptions): boolean => {
  if (name === 'localhost' || isLoopback(name)) return true
  if (options.names.some((allowed) => allowed.toLowerCase() === name)) return true
  const wildcard = options.host === '0.0.0.0' || options.host === '::'
  return wildcard ? isIP(name) !== 0 : name === options.host.toLowerCase()
}

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
} as const

/** Refuses foreign names and foreign pages before anything is read, and sets the page's headers. */
export const guardOrigin = (app: FastifyInstance, options: GuardOptions): void => {
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(HEADERS)
    const name = hostName(request.headers.host)
    if (name === null || !hostAllowed(name, options)) {
      const shown = JSON.stringify((request.headers.host ?? '').slice(0, 128))
      const hint = 'reach it by its address, or add the name to the console names'
      throw new PenstockError('host_not_allowed', `the console is not served as ${shown}; ${hint}`)
    }
    const origin = request.headers.origin
    if (origin !== undefined && !sameOrigin(origin, request.headers.host)) {
      const shown = JSON.stringify(origin.slice(0, 128))
      throw new PenstockError('host_not_allowed', `requests from a page of ${shown} are refused`)
    }
  })
}

/** Scheme aside (TLS may end at a proxy before us), the page must come from this very address. */
const sameOrigin = (origin: string, host: string | undefined): boolean =>
  URL.canParse(origin) && new URL(origin).host === host?.toLowerCase()

const bearer = (request: FastifyRequest): string | null =>
  /^Bearer +(\S{1,256})$/i.exec(request.headers.authorization ?? '')?.[1] ?? null

/** Throws 401 without a known key, 403 with a consumer's. */
const requireAdmin = (admin: AdminPort, request: FastifyRequest): void => {
  const key = bearer(request)
  if (key === null) {
    const hint = 'send `Authorization: Bearer <admin key>`; `penstock up` prints the first one'
    throw new PenstockError('invalid_api_key', `an admin key is needed here: ${hint}`)
  }
  const role = admin.roleOf(key)
  if (role === null) throw new PenstockError('invalid_api_key', 'this key is unknown or revoked')
  if (role !== 'admin') {
    throw new PenstockError('admin_required', 'this is a consumer key; an admin key is needed here')
  }
}

/** True while the key that opened a long stream is still an admin's: revocation ends streams. */
export const stillAdmin = (admin: AdminPort, request: FastifyRequest): boolean => {
  const key = bearer(request)
  return key !== null && admin.roleOf(key) === 'admin'
}

export const adminOnly =
  (admin: AdminPort) =>
  async (request: FastifyRequest, _reply: FastifyReply): Promise<void> =>
    requireAdmin(admin, request)

/** Metrics are open to this machine (its Prometheus); from elsewhere they need an admin key. */
export const adminUnlessLocal =
  (admin: AdminPort) =>
  async (request: FastifyRequest, _reply: FastifyReply): Promise<void> => {
    if (!isLoopback(request.socket.remoteAddress ?? '')) requireAdmin(admin, request)
  }
