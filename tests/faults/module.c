/* A PKCS #11 module that does what another does, but for signing when it is told to fail.
 *
 * PKCS11REAL is the other module's path, PKCS11FAULT a file with a word: device, general,
 * closed, logout, hang, or nothing. The order of the functions is that of the standard's list
 * (PKCS #11 v2.40, CK_FUNCTION_LIST).
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ulong_t;
struct list {
    unsigned char version[2];
    void *call[68];
};
enum { CLOSE_SESSION = 13, LOGOUT = 19, SIGN_INIT = 42, SIGN = 43 };

static struct list mine, *real;

static int told(const char *word) {
    char found[32] = "";
    FILE *file = fopen(getenv("PKCS11FAULT"), "r");
    if (file != NULL) {
        if (fgets(found, sizeof found, file) == NULL) found[0] = 0;
        fclose(file);
    }
    return strcmp(found, word) == 0;
}

static ulong_t failing_sign(ulong_t session, unsigned char *data, ulong_t length,
                            unsigned char *signature, ulong_t *signature_length) {
    ulong_t (*sign)(ulong_t, unsigned char *, ulong_t, unsigned char *, ulong_t *) =
        real->call[SIGN];
    if (told("device")) return 0x30;  /* CKR_DEVICE_ERROR */
    if (told("general")) return 0x05; /* CKR_GENERAL_ERROR */
    if (told("closed")) ((ulong_t(*)(ulong_t))real->call[CLOSE_SESSION])(session);
    while (told("hang")) pause();
    return sign(session, data, length, signature, signature_length);
}

static ulong_t failing_init(ulong_t session, void *mechanism, ulong_t key) {
    ulong_t (*init)(ulong_t, void *, ulong_t) = real->call[SIGN_INIT];
    if (told("logout")) ((ulong_t(*)(ulong_t))real->call[LOGOUT])(session);
    return init(session, mechanism, key);
}

ulong_t C_GetFunctionList(struct list **out) {
    if (real == NULL) {
        void *module = dlopen(getenv("PKCS11REAL"), RTLD_NOW | RTLD_LOCAL);
        ulong_t (*get)(struct list **) = module ? dlsym(module, "C_GetFunctionList") : NULL;
        if (get == NULL || get(&real) != 0) return 0x05;
        mine = *real;
        mine.call[SIGN] = failing_sign;
        mine.call[SIGN_INIT] = failing_init;
    }
    *out = &mine;
    return 0;
}
