/**
 * The gateway alone in a process, so that its memory can be measured. Argument: the engine's URL.
 */
import { routeOf, snapshotOf, startTestGateway, targetOf } from './gateway.ts'

const url = process.argv[2] ?? ''
const gateway = await startTestGateway(snapshotOf([routeOf([targetOf(url)])]))
process.send?.(gateway.handle.port)
