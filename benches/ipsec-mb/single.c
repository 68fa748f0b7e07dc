/* libipsec-mb's call that encrypts one packet by AES-128-GCM, in a loop over many:
 * 64 packets in turn, one key, 8 octets of AAD, in place, ICV of 16 octets behind the text. Packets
 * lie one behind the other, as those of `culvert bench aead` do, and IVs are there beforehand: an octet
 * written just before it is read as part of a word would cost the call a stall. Timed is each pass
 * over the 64. Prints, for each size, TSC cycles a packet: the median of the passes, and the best.
 *
 *     single MILLISECONDS SIZE...
 */
#include <intel-ipsec-mb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

enum { PACKETS = 64, LONGEST = 9216, PASSES_MAX = 1 << 20 };

static int ascending(const void *a, const void *b)
{
	const unsigned long long x = *(const unsigned long long *)a, y = *(const unsigned long long *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static unsigned char memory[PACKETS * (LONGEST + 64)] __attribute__((aligned(64)));
	static unsigned char ivs[PACKETS][16];
	static unsigned long long passes[PASSES_MAX];
	static struct gcm_key_data key;
	struct gcm_context_data context;
	unsigned char secret[16], aad[8];
	IMB_MGR *manager = alloc_mb_mgr(0);

	if (argc < 3 || manager == NULL) {
		fprintf(stderr, "usage: %s MILLISECONDS SIZE...\n", argv[0]);
		return 2;
	}
	init_mb_mgr_auto(manager, NULL);
	memset(secret, 7, sizeof(secret));
	memset(ivs, 9, sizeof(ivs));
	for (int n = 0; n < PACKETS; n++)
		ivs[n][11] = (unsigned char)n;
	memset(aad, 5, sizeof(aad));
	IMB_AES128_GCM_PRE(manager, secret, &key);
	for (int at = 2; at < argc; at++) {
		const int size = atoi(argv[at]);
		const unsigned long long goal = atoll(argv[1]) * 2500000ULL; /* of some 2.5 GHz */
		const size_t stride = (size + 16 + 63) / 64 * 64;
		unsigned long long total = 0;
		int count = 0;

		if (size < 1 || size > LONGEST)
			return 2;
		for (int pass = -200; count < PASSES_MAX && total < goal; pass++) {
			const unsigned long long start = __rdtsc();

			for (int n = 0; n < PACKETS; n++) {
				unsigned char *text = memory + n * stride;

				IMB_AES128_GCM_ENC(manager, &key, &context, text, text, size,
						   ivs[n], aad, sizeof(aad), text + size, 16);
			}
			if (pass < 0)
				continue; /* warming up */
			passes[count] = __rdtsc() - start;
			total += passes[count++];
		}
		qsort(passes, count, sizeof(*passes), ascending);
		printf("%d %.2f %.2f\n", size, (double)passes[count / 2] / PACKETS,
		       (double)passes[0] / PACKETS);
	}
	free_mb_mgr(manager);
	return 0;
}
