/**
 * The gateway alone in a process, so that its memory can be measured. Argument: the engine's URL.
 */
import { policyOf, routeOf, snapshotOf, startTestGateway, targetOf } from './gateway.ts'

const url = process.argv[2] ?? ''
// All at once is what is to be borne here: nobody waits for a place.
const policy = policyOf({
  retry: { attempts: 2, on: ['unreachable', 'error'], budget: 0.1 },
  queue: { ceiling: 'none', depth: 10, wait: 1_000 },
})
const gateway = await startTestGateway(snapshotOf([routeOf([targetOf(url)], { policy })]))
process.send?.(gateway.handle.port)

// The test is gone, however it ended: nobody else would stop this one.
process.on('disconnect', () => process.exit(0))
