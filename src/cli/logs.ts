/** `penstock logs`: an engine's log, the last lines or as it comes. */
import type { Settings } from '../config.ts'
import { adminClient } from './client.ts'
import { EXIT, type ExitCode, print } from './output.ts'
import type { Flags } from './program.ts'
import { onSignals } from './signals.ts'

export const logs = async (settings: Settings, flags: Flags, target: string): Promise<ExitCode> => {
  const ended = new AbortController()
  const stopListening = onSignals(['SIGINT', 'SIGTERM'], () => ended.abort())
  const query = new URLSearchParams({
    target,
    rank: String(flags.rank),
    lines: String(flags.lines),
    follow: String(flags.follow),
  })
  try {
    for await (const line of adminClient(settings).text(`/admin/v1/logs?${query}`, ended.signal)) {
      print(line)
    }
  } catch (error) {
    if (!ended.signal.aborted) throw error
  } finally {
    stopListening()
  }
  return EXIT.done
}
