/** Every engine that a manifest may name. */
import type { Runtimes } from '../src/core/runtime.ts'
import { sglang } from './sglang.ts'
import { vllm } from './vllm.ts'

export const runtimes: Runtimes = { vllm, sglang }
