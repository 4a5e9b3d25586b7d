/** XID on any GPU of a rank, in memory: one falls off the bus, the others are seen as before. */
import { expect, test } from 'vitest'
import { readFault } from '../../../runtimes/simulator/faults/fault.ts'
import { serve } from '../../../runtimes/simulator/serve.ts'
import { nvidiaSmi } from '../../../runtimes/simulator/smi.ts'
import { MemoryRank, Room } from '../../support/memory-world.ts'
import { VirtualClock } from '../../support/virtual-clock.ts'
import { settingsOf } from './played.ts'
import { rehearsal } from './support.ts'

const struck = async (gpu: number | null) => {
  const room = new Room(new VirtualClock())
  const setting = rehearsal({ node: 'four', gpus: [0, 1, 2, 3], speed: 1 })
  const read = readFault({ kind: 'xid', startMs: 300_000, gpu })
  if (!read.ok) throw new Error(read.message)
  const rank = new MemoryRank(room, () => {})
  rank.live(serve(settingsOf('vllm', null), setting, [read.fault], rank.world))
  await room.clock.runTo(330_000)
  const codes = setting.gpus.map((index) => {
    const argv = `-i ${index} --query-gpu=memory.used --format=csv`.split(' ')
    const { text, code } = nvidiaSmi(argv, setting, room)
    return `${code}${text.includes('GPU is lost') ? ' lost' : ''}`
  })
  return { codes, ended: rank.code }
}

test.each([
  [null, ['15 lost', '0', '0', '0']],
  [2, ['0', '0', '15 lost', '0']],
])('xid of GPU %s', async (gpu, codes) => {
  expect(await struck(gpu)).toEqual({ codes, ended: 0 })
})

test('a GPU that the rank has not does not concern it', async () => {
  expect(await struck(9)).toEqual({ codes: ['0', '0', '0', '0'], ended: null })
})
