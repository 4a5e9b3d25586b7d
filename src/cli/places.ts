/** Where the parts that come with Penstock lie: beside this file, wherever it is installed. */
import { fileURLToPath } from 'node:url'

const place = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))

export const PROFILES_DIRECTORY = place('gpu-profiles')
export const CONSOLE_DIRECTORY = place('dist/console')
export const SIMULATOR_BIN = place('runtimes/simulator/bin')
export const ROOT_DIRECTORY = place('.')
