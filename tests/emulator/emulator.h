// What those who test ask of the emulated device, beside the functions of CUDA.
#pragma once
#include <cstdint>

extern "C" {
void emulator_seed(uint64_t seed);    // of all that happens in a random order
void emulator_lose(int status);       // every call answers with this from now on; 0: no more
void emulator_refuse(int64_t after);  // no memory after so many more pieces, until this is called again; negative: none
bool emulator_kept(int number);       // whether a place is as it was; EMULATOR_MUTANT names the one that is not
}
