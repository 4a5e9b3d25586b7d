/** The watch for a protocol's streams. */
import { NamedWatch } from './named-watch.ts'
import type { Protocol } from './protocol.ts'
import { StreamWatch, type Watch } from './usage.ts'

export const watchOf = ({ events, finish }: Protocol, engine: string): Watch =>
  events === null || events === 'chat' ? new StreamWatch() : new NamedWatch(events, finish, engine)
