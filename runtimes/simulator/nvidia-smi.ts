/** The flight simulator's `nvidia-smi`: the readings that simulator processes publish. */
import { runNvidiaSmi } from './smi.ts'

await runNvidiaSmi(process.argv.slice(2), process.env)
