/* libmodbus as a server, for tests: one unit on a serial line, or any number of TCP clients.
 *
 *   libmodbus_server tcp PORT CELLS...
 *   libmodbus_server rtu DEVICE BAUDRATE PARITY STOPBITS UNIT CELLS...
 *
 * CELLS is AREA:FIRST:VALUE,VALUE,... with the area coil, discrete, holding or input. Each area has
 * CELLS_MAX cells, 0 where nothing else is said; what lies behind them is exception 2. Requests to
 * another unit of a line are not answered.
 */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#define CELLS_MAX 1000

static modbus_mapping_t *map;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
    exit(1);
}

static void set_cells(char *text)
{
    char *area = strtok(text, ":");
    int cell = atoi(strtok(NULL, ":"));
    for (char *value = strtok(NULL, ","); value; value = strtok(NULL, ","), cell++) {
        if (!strcmp(area, "coil"))
            map->tab_bits[cell] = atoi(value);
        else if (!strcmp(area, "discrete"))
            map->tab_input_bits[cell] = atoi(value);
        else if (!strcmp(area, "holding"))
            map->tab_registers[cell] = atoi(value);
        else
            map->tab_input_registers[cell] = atoi(value);
    }
}

static void serve_line(modbus_t *ctx)
{
    uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
    for (;;) {
        int length = modbus_receive(ctx, query);
        if (length > 0)
            modbus_reply(ctx, query, length, map);
        else if (length < 0 && errno != EMBBADCRC && errno != EMBBADDATA && errno != ETIMEDOUT)
            fail("receive");
        else
            modbus_flush(ctx);
    }
}

static void serve_clients(modbus_t *ctx, int listening)
{
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    fd_set all, ready;
    FD_ZERO(&all);
    FD_SET(listening, &all);
    for (;;) {
        ready = all;
        if (select(FD_SETSIZE, &ready, NULL, NULL, NULL) < 0)
            fail("select");
        for (int fd = 0; fd < FD_SETSIZE; fd++) {
            if (!FD_ISSET(fd, &ready))
                continue;
            if (fd == listening) {
                int client = modbus_tcp_accept(ctx, &listening);
                if (client >= 0)
                    FD_SET(client, &all);
                continue;
            }
            modbus_set_socket(ctx, fd);
            int length = modbus_receive(ctx, query);
            if (length > 0) {
                modbus_reply(ctx, query, length, map);
            } else if (length < 0) {
                close(fd);
                FD_CLR(fd, &all);
            }
        }
    }
}

int main(int argc, char **argv)
{
    int serial = argc > 1 && !strcmp(argv[1], "rtu");
    int first_cells = serial ? 7 : 3;
    if (argc < first_cells)
        return 2;
    map = modbus_mapping_new(CELLS_MAX, CELLS_MAX, CELLS_MAX, CELLS_MAX);
    for (int i = first_cells; i < argc; i++)
        set_cells(argv[i]);
    modbus_t *ctx = serial
        ? modbus_new_rtu(argv[2], atoi(argv[3]), argv[4][0], 8, atoi(argv[5]))
        : modbus_new_tcp("127.0.0.1", atoi(argv[2]));
    if (ctx == NULL || map == NULL)
        fail("new");
    if (serial) {
        modbus_set_slave(ctx, atoi(argv[6]));
        if (modbus_connect(ctx) < 0)
            fail("connect");
        puts("ready");
        fflush(stdout);
        serve_line(ctx);
    } else {
        int listening = modbus_tcp_listen(ctx, 8);
        if (listening < 0)
            fail("listen");
        puts("ready");
        fflush(stdout);
        serve_clients(ctx, listening);
    }
    return 0;
}
