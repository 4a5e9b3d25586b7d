#!/usr/bin/env node
/** Entry: hands the command line to cli/program.ts and turns what it says into an exit code. */
import { run } from './cli/program.ts'

// Whoever read our output is gone (`penstock up | head`, a closed terminal): that is no reason to
// leave without stopping what was started.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error
  })
}

process.exitCode = await run(process.argv.slice(2))
