#!/usr/bin/env node
/** Entry: hands the command line to cli/program.ts and turns what it says into an exit code. */
import { run } from './cli/program.ts'

process.exitCode = await run(process.argv.slice(2))
