/** uvicorn's access log: one line a request, when its answer begins, always on stdout. */
import { type IncomingMessage, STATUS_CODES } from 'node:http'
import { stampOf } from '../log.ts'
import type { EngineResponse } from './response.ts'
import type { Service } from './service.ts'

/** One request; SGLang puts its clock in front (srt/utils: set_uvicorn_logging_configs). */
const lineOf = (
  { settings: { engine }, clock }: Pick<Service, 'settings' | 'clock'>,
  request: IncomingMessage,
  status: number,
): string => {
  const { remoteAddress = '', remotePort = 0 } = request.socket
  // A socket for both families gives IPv4 callers a prefix that uvicorn's does not.
  const caller = `${remoteAddress.replace(/^::ffff:/, '')}:${remotePort}`
  const asked = `${request.method} ${request.url} HTTP/${request.httpVersion}`
  const time = engine === 'vllm' ? '' : `[${stampOf(engine, new Date(clock.epochMs()))}] `
  return `${time}INFO:     ${caller} - "${asked}" ${status} ${STATUS_CODES[status] ?? ''}\n`
}

export const logAccess = (
  service: Service,
  request: IncomingMessage,
  response: EngineResponse,
): void => {
  const { unlogged } = service.settings
  if (unlogged === null) return
  const path = (request.url ?? '/').split('?', 1)[0] ?? '/'
  if (unlogged.paths.includes(path)) return
  if (unlogged.prefixes.some((prefix) => path.startsWith(prefix))) return
  response.onHead = (status) => service.stdout(lineOf(service, request, status))
}
