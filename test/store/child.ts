/** A process of its own that opens a store, for the tests that kill it or race with it. */
import { errorLine } from '../../src/errors.ts'
import { openStore, type Store } from '../../src/store/store.ts'
import { finished } from './requests.ts'

const [mode = '', home = ''] = process.argv.slice(2)

/** Says what is durable only after the store said so: what the parent read must be there. */
const writeForever = (store: Store): void => {
  let round = 0
  const step = (): void => {
    round += 1
    const { view, key } = store.createKey({ role: 'consumer', consumer: 'c', models: null })
    const inventory = { path: 'inventory.yaml', text: `round ${round}` }
    const generation = store.saveDesired({ inventory, manifests: [] }, true)
    store.recordRequests(Array.from({ length: 50 }, (_, at) => finished(`${round}-${at}`)))
    process.stdout.write(`${JSON.stringify({ round, id: view.id, key, generation })}\n`)
    setImmediate(step)
  }
  step()
}

try {
  const store = await openStore({ home })
  if (mode === 'write') writeForever(store)
  if (mode === 'hold') {
    process.stdout.write('held\n')
    setInterval(() => undefined, 1000)
  }
} catch (error) {
  process.stdout.write(`refused: ${errorLine(error)}\n`)
}
