import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe } from 'vitest'
import { processDriver } from '../../src/drivers/process.ts'
import { hasProgram, requirePart } from '../support/parts.ts'
import { nodeSpec } from '../support/rank.ts'
import { conformance, never, type Rig } from './conformance.ts'

const setup = async (): Promise<Rig> => {
  const home = mkdtempSync(join(tmpdir(), 'penstock-process-'))
  const node = nodeSpec('here', { address: '127.0.0.21', driver: 'process', device: 'cpu' })
  const open = () => processDriver({ node, home, simulatorBin: join(home, 'bin') })
  const file = (name: string): string => join(home, 'run', `${name}.json`)
  return {
    node,
    open,
    image: 'unused',
    foreign: async (name) => {
      writeFileSync(file(name), '{"not": "ours"}')
      return async () => {
        const same = readFileSync(file(name), 'utf8') === '{"not": "ours"}'
        rmSync(file(name))
        return same
      }
    },
    damaged: async (spec) => {
      const driver = open()
      await driver.start(spec, never)
      const text = readFileSync(file(spec.name), 'utf8')
      writeFileSync(file(spec.name), text.replaceAll('dev.penstock.rank', 'dev.penstock.rnk'))
      return async () => {
        writeFileSync(file(spec.name), text)
        await driver.stop(spec.name, 0, never)
      }
    },
    close: async () => rmSync(home, { recursive: true }),
  }
}

describe.skipIf(!requirePart('Linux (/proc)', process.platform === 'linux' && hasProgram('sh')))(
  'process driver',
  () => conformance('conformance', setup),
)
