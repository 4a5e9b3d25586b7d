/** Filler text of a wanted length in tokens: equal seeds give equal text. Pure. */
import { Random } from './random.ts'

/**
 * Common words: with the space before it each is one token in the vocabularies of Qwen2.5 and
 * DeepSeek-V3 (and of nearly every byte-pair vocabulary), so words count tokens.
 */
const WORDS = (
  'the of and to in is that it was for on are with as his they be at one have this from or had ' +
  'by hot but some what there we can out other were all your when up use word how said an each ' +
  'she which do their time if will way about many then them would write like so these her long ' +
  'make thing see him two has look more day could go come did my sound no most number who over ' +
  'know water than call first people may down side been now find any new work part take get ' +
  'place made live where after back little only round man year came show every good me give our ' +
  'under name very through just form much great think say help low line before turn cause same ' +
  'mean differ move right boy old too does tell set three want air well also play small end put ' +
  'home read hand port large add land here must big high such follow act why ask men change went ' +
  'light kind off need house picture try us again animal point mother world near build self earth'
).split(' ')

export const words = (seed: number, count: number): string => {
  const random = new Random(seed)
  const chosen: string[] = []
  for (let index = 0; index < count; index += 1) {
    chosen.push(WORDS[random.bits() % WORDS.length] ?? '')
  }
  return chosen.join(' ')
}
